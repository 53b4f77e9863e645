/* Reads from a GPU: a copy into a mappable buffer, and from there into the engine's memory when it is
 * mapped. Mappable buffers are kept for the next read. */
import type {Pointer, Wasm} from './wasm.js';

/** Larger buffers are not kept, and not more than these in number. */
const KEPT_BYTES = 16 << 20, KEPT = 8;

/** A loss follows errors that come from it within this time. */
const LOSS_MS = 500;

function later(ms: number): Promise<void> {
    return new Promise(resolve => setTimeout(resolve, ms));
}

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

    /** A read that begins when its `begin` is called: `copy` records and submits the copy of `whole` bytes into the
     * buffer that it gets. */
    start(dst: Pointer, bytes: number, copy: (staging: GPUBuffer, whole: number) => void):
        {ticket: number; begin(): void} {
        const read = {ticket: this.next(), dst, cancelled: false};
        this.underWay.push(read);
        return {ticket: read.ticket, begin: () => this.begin(read, bytes, copy)};
    }

    private begin(read: Read, bytes: number, copy: (staging: GPUBuffer, whole: number) => void): void {
        const whole = bytes + 3 & ~3, staging = this.take(whole);
        copy(staging, whole);
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
            /* Nothing was read. A loss is told after it has cut off reads, under Deno with another error: the read is
             * not done before it is known which it was. */
            const {device} = this, isLost = device.lost.then(() => true), wait = (e as Error).name === 'AbortError';
            if (!await (wait ? isLost : Promise.race([isLost, later(LOSS_MS)]))) this.fail(e);
            end();
        }));
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
