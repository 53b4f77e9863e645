/* Times on a GPU, between the timestamps at both ends of passes. They stay on the device until the query set
 * is full, or somebody asks. */
import type {Wasm} from './wasm.js';

/** DBT_HAL_UNTIMED, TIME_PASSES and TIME_DISPATCHES of src/gpu/hal.h. */
export const UNTIMED = 0, TIME_DISPATCHES = 2;

const PASSES = 2048; /* of a query set */

export class Timer {
    mode = UNTIMED;
    private n = 0;
    private queries: GPUQuerySet | null = null;
    private resolved: GPUBuffer | null = null;
    private underWay = 0;
    private times: bigint[] = [];
    private order = Promise.resolve();
    private submitted: (() => void)[] = [];

    constructor(private readonly device: GPUDevice, private readonly wasm: Wasm,
                private readonly fail: (e: unknown) => void) {}

    /** Nothing waits to be read. */
    get isIdle(): boolean {
        return this.underWay === 0;
    }

    /** What the next pass of the encoder is to be begun with. */
    next(encoder: GPUCommandEncoder): GPUComputePassDescriptor | undefined {
        if (this.mode === UNTIMED) return undefined;
        if (this.n === PASSES) this.resolve(encoder);
        const querySet = this.queries ??= this.device.createQuerySet({type: 'timestamp', count: 2 * PASSES});
        const i = 2 * this.n++;
        return {timestampWrites: {querySet, beginningOfPassWriteIndex: i, endOfPassWriteIndex: i + 1}};
    }

    get hasTimes(): boolean {
        return this.n > 0;
    }

    /** Records the copy of what was timed; it is read after the submit. */
    resolve(encoder: GPUCommandEncoder): void {
        const {n, device} = this, bytes = 16 * n;
        this.n = 0;
        this.underWay++;
        this.resolved ??= device.createBuffer({
            size: 16 * PASSES, usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
        });
        const staging = device.createBuffer({
            size: bytes, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
        });
        encoder.resolveQuerySet(this.queries!, 0, 2 * n, this.resolved, 0);
        encoder.copyBufferToBuffer(this.resolved, 0, staging, 0, bytes);
        this.submitted.push(() => {
            const mapped = staging.mapAsync(GPUMapMode.READ);
            mapped.catch(() => {}); /* looked at in its turn */
            this.order = this.wasm.waiter.track(this.order.then(() => mapped).then(() => {
                const at = new BigUint64Array(staging.getMappedRange());
                for (let i = 0; i < n; i++) {
                    const begin = at[2 * i], end = at[2 * i + 1];
                    this.times.push(end > begin ? end - begin : 0n);
                }
                staging.destroy();
                this.underWay--;
            }).catch((e: unknown) => {
                this.underWay--;
                if ((e as Error).name !== 'AbortError') this.fail(e);
            }));
        });
    }

    /** To be called after each submit. */
    afterSubmit(): void {
        for (const read of this.submitted.splice(0)) read();
    }

    /** The oldest, at most n, which are forgotten. */
    take(n: number): bigint[] {
        return this.times.splice(0, n);
    }

    close(): void {
        this.queries?.destroy();
        this.resolved?.destroy();
    }
}
