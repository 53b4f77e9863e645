/* A language model's past as onnxruntime's users have it: tensors that a run gives as present.* and takes
 * back as past_key_values.*. Here they are handles on states of the engine, one state per row of the batch:
 *
 *     run 1   past: none          lease A: states [s0, s1], lengths [5, 5]     present.* are handles of A
 *     run 2   past: A's handles   A is as long as its states: they grow in place, lease B: lengths [6, 6]
 *     run 3   past: A's again     its states are longer by now: copies, cut to A's lengths
 *
 * States go when the last handle on them has been disposed of or collected. */
import {Tensor} from 'onnxruntime-common';

import {ortTensor, ortType} from './ort_types.js';

import type {Session, State, Tensor as EngineTensor} from './engine.js';

interface Shared {
    state: State;
    leases: number;
}

/** What a run left in its states. */
export class Lease {
    readonly lengths: number[];
    private handles = 0;
    private released = false;

    constructor(readonly session: Session, private readonly shared: Shared[]) {
        this.lengths = shared.map(s => s.state.length);
        for (const s of shared) s.leases++;
    }

    static empty(session: Session, batch: number): Lease {
        const shared: Shared[] = [];
        try {
            for (let b = 0; b < batch; b++) shared.push({state: session.createState(), leases: 0});
        } catch (e) {
            for (const s of shared) s.state.dispose();
            throw e;
        }
        return new Lease(session, shared);
    }

    get states(): State[] {
        return this.shared.map(s => s.state);
    }

    /** A lease for a run to append to: of the same states where nothing was appended since, else of copies.
     * To be released after the run. */
    follow(): Lease {
        if (this.shared.every((s, b) => s.state.length === this.lengths[b])) {
            return new Lease(this.session, this.shared);
        }
        const copies: Shared[] = [];
        try {
            this.shared.forEach((s, b) => {
                copies.push({state: s.state.fork(), leases: 0});
                copies[b].state.truncate(this.lengths[b]);
            });
        } catch (e) {
            for (const copy of copies) copy.state.dispose();
            throw e;
        }
        return new Lease(this.session, copies);
    }

    /** After a run has appended: what it gives handles of. */
    grown(): Lease {
        return new Lease(this.session, this.shared);
    }

    hold(): void {
        this.handles++;
    }

    /** A handle is gone. */
    drop(): void {
        if (--this.handles === 0) this.release();
    }

    release(): void {
        if (this.released) return;
        this.released = true;
        for (const s of this.shared) {
            if (--s.leases === 0) s.state.dispose();
        }
    }

    /** Tensor `pair` of all rows, as the model would give it. */
    async read(pair: number): Promise<EngineTensor> {
        const rows: EngineTensor[] = [];
        for (const [b, s] of this.shared.entries()) rows.push(await s.state.read(pair, this.lengths[b]));
        return join(rows);
    }

    /** The same where the CPU has it: nothing has to be waited for. */
    readNow(pair: number): EngineTensor {
        return join(this.shared.map((s, b) => s.state.readNow(pair, this.lengths[b])));
    }

    /** Dims of tensor `pair`. */
    dims(pair: number): number[] {
        const all = this.shared.map((s, b) => s.state.dims(pair, this.lengths[b]));
        return joinedDims(all);
    }
}

/* Rows of a batch that are shorter than others end with zeros. */
function joinedDims(all: readonly (readonly number[])[]): number[] {
    const dims = all[0].map((_, axis) => Math.max(...all.map(d => d[axis])));
    dims[0] = all.length;
    return dims;
}

function join(rows: EngineTensor[]): EngineTensor {
    if (rows.length === 1) return rows[0];
    const dims = joinedDims(rows.map(r => r.dims)), [first] = rows;
    const Elements = first.data.constructor as new (n: number) => Uint8Array;
    const row = dims.slice(1).reduce((n, d) => n * d, 1), data = new Elements(rows.length * row);
    rows.forEach((r, b) => {
        const axis = dims.findIndex((d, i) => i > 0 && d !== r.dims[i]);
        if (axis < 0) {
            data.set(r.data as Uint8Array, b * row);
            return;
        }
        const inner = dims.slice(axis + 1).reduce((n, d) => n * d, 1), from = r.dims[axis] * inner;
        for (let o = 0; o * dims[axis] * inner < row; o++) {
            data.set((r.data as Uint8Array).subarray(o * from, (o + 1) * from), b * row + o * dims[axis] * inner);
        }
    });
    return {type: first.type, dims, data};
}

const collected = new FinalizationRegistry<Lease>(lease => lease.drop());

/* Its constructor takes what a tensor of any place needs; the types know them one by one. */
const Base = Tensor as unknown as new (of: object) => Tensor;

/** A present.* of a run. On a GPU it is 'gpu-buffer', and getData() brings it; else it is 'cpu', and its data are
 * read from the state when somebody looks at them. */
export class PastTensor extends Base {
    readonly lease: Lease;
    readonly pair: number;
    private disposed = false;
    private here: boolean;
    private copy?: Tensor;

    constructor(lease: Lease, pair: number, type: string, here: boolean) {
        super({
            location: 'gpu-buffer', type: ortType(type, 'a past'), dims: lease.dims(pair), gpuBuffer: {},
            download: async () => ortTensor(await lease.read(pair), 'a past').data,
        });
        this.lease = lease;
        this.pair = pair;
        this.here = here;
        lease.hold();
        collected.register(this, lease, this);
    }

    override get location(): Tensor.DataLocation {
        return this.here && !this.disposed ? 'cpu' : super.location;
    }

    override get data(): Tensor.DataType {
        if (!this.here || this.disposed) return super.data;
        this.copy ??= ortTensor(this.lease.readNow(this.pair), 'a past');
        return this.copy.data;
    }

    override get gpuBuffer(): never {
        throw new Error('a past stays inside of the engine: feed the tensor back, or use getData()');
    }

    override async getData(releaseData?: boolean): Promise<Tensor.DataType> {
        const data = this.here && !this.disposed ? this.data : await super.getData();
        if (releaseData) this.drop();
        return data;
    }

    /** Reads the data now, for callers that do not expect to wait for them. */
    async bring(): Promise<void> {
        this.copy = ortTensor(await this.lease.read(this.pair), 'a past');
        this.here = true;
    }

    /** Whether it can still be fed back without its data. */
    get isHeld(): boolean {
        return !this.disposed;
    }

    private drop(): void {
        if (this.disposed) return;
        this.disposed = true;
        collected.unregister(this);
        this.lease.drop();
    }

    override dispose(): void {
        this.drop();
        super.dispose();
    }
}
