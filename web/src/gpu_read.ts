/* Reads from a GPU: a copy into a mappable buffer, and from there into the engine's memory when it is
 * mapped. Mappable buffers are kept for the next read. */
import type {Pointer, Wasm} from './wasm.js';

/** Larger buffers are not kept, and not more than these in number. */
const KEPT_BYTES = 16 << 20, KEPT = 8;

interface Read {
    ticket: number;
    dst: Pointer;
    cancelled: boolean;
}

export class Readback {
    private readonly pool: GPUBuffer[] = [];
    private underWay: Read[] = [];
    private tickets = 0;
    private closed = false;

    constructor(private readonly device: GPUDevice, private readonly wasm: Wasm,
                private readonly fail: (e: unknown) => void) {}

    /** A ticket for a read of no bytes. */
    nothing(): number {
        return this.next();
    }

    private next(): number {
        return this.tickets = this.tickets >= 0x7fffffff ? 1 : this.tickets + 1;
    }

    /** `copy` records and submits the copy of `whole` bytes into the buffer that it gets. */
    start(dst: Pointer, bytes: number, copy: (staging: GPUBuffer, whole: number) => void): number {
        const whole = bytes + 3 & ~3, staging = this.take(whole);
        const read = {ticket: this.next(), dst, cancelled: false};
        copy(staging, whole);
        this.underWay.push(read);
        const end = () => void (this.underWay = this.underWay.filter(r => r !== read));
        void this.wasm.waiter.track(staging.mapAsync(GPUMapMode.READ, 0, whole).then(() => {
            if (this.closed) return;
            if (!read.cancelled) {
                this.wasm.bytes.set(new Uint8Array(staging.getMappedRange(0, whole), 0, bytes), read.dst);
            }
            staging.unmap();
            if (staging.size <= KEPT_BYTES && this.pool.length < KEPT) this.pool.push(staging);
            else staging.destroy();
            end();
        }, async (e: unknown) => {
            /* The device is lost, and nothing was read: it is not done before that is known. */
            if ((e as Error).name === 'AbortError') await this.device.lost;
            else this.fail(e);
            end();
        }));
        return read.ticket;
    }

    private take(bytes: number): GPUBuffer {
        let best = -1;
        this.pool.forEach((b, i) => {
            if (b.size >= bytes && (best < 0 || b.size < this.pool[best].size)) best = i;
        });
        if (best >= 0) return this.pool.splice(best, 1)[0];
        let size = 4096;
        while (size < bytes) size *= 2;
        if (size > KEPT_BYTES) size = bytes;
        return this.device.createBuffer({size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST});
    }

    isDone(ticket: number): boolean {
        return !this.underWay.some(r => r.ticket === ticket);
    }

    cancel(ticket: number): void {
        for (const read of this.underWay) {
            if (read.ticket === ticket) read.cancelled = true;
        }
    }

    close(): void {
        this.closed = true;
        for (const buffer of this.pool.splice(0)) buffer.destroy();
    }
}
