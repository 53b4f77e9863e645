/* One onnxruntime session on the engine: feeds in, fetches out. Past tensors that come from a run of this
 * session stay in the engine's states (ort_past.ts); any others are inputs like all others. */
import {Engine} from './engine.js';
import {elementCount} from './tensor.js';
import {Lease, PastTensor} from './ort_past.js';
import {engineType, ortTensor, ortType} from './ort_types.js';
import {DibitError} from './wasm.js';

import type {InferenceSession, Tensor} from 'onnxruntime-common';
import type {Model, Session, Tensor as EngineTensor} from './engine.js';
import type {ValueInfo} from './tensor.js';

type Feeds = Record<string, Tensor>;
type Fetches = Record<string, Tensor | null>;
type RunOptions = InferenceSession.RunOptions;

/** What a session's options come to. */
export interface HandlerOptions {
    profile: boolean;
    freeDimensions: Record<string, number>;
    /** Whether an output is wanted where the model runs. */
    stays(output: string): boolean;
}

function metadata(value: ValueInfo, free: Record<string, number>): InferenceSession.ValueMetadata {
    /* A dim without a name is 'unknown' and its place, as there are no names for it. */
    const shape = (value.dims ?? []).map((d, i) => typeof d === 'number' ? d : free[d] ?? (d || `unknown_${i}`));
    return {name: value.name, isTensor: true, type: ortType(value.type, `'${value.name}'`), shape};
}

/** As RunOptions.terminate says, which may be set while the run is under way. */
function terminateSignal(options: RunOptions): AbortSignal | undefined {
    if (!options || !('terminate' in options)) return undefined;
    return {
        get aborted() {
            return !!options.terminate;
        },
        throwIfAborted() {
            if (options.terminate) throw new DibitError('CANCELLED', 'the run was terminated');
        },
        addEventListener() {},
        removeEventListener() {},
    } as unknown as AbortSignal;
}

export class SessionHandler {
    readonly inputNames: string[];
    readonly outputNames: string[];
    readonly inputMetadata: InferenceSession.ValueMetadata[];
    readonly outputMetadata: InferenceSession.ValueMetadata[];
    private readonly pairOfPast = new Map<string, number>();
    private readonly pairOfPresent = new Map<string, number>();
    private readonly types = new Map<string, string>();
    /* Planned for inputs of these ranks; one alone where the model tells them all. */
    private readonly sessions = new Map<string, Session>();
    private session!: Session;
    /* Whether the engine can keep the past of this model. */
    private keeps = false;
    private last: Promise<unknown> = Promise.resolve();

    private constructor(private readonly engine: Engine, private readonly model: Model,
                        private readonly options: HandlerOptions) {
        const {inputs, outputs} = model, free = options.freeDimensions;
        this.inputNames = inputs.map(i => i.name);
        this.outputNames = outputs.map(o => o.name);
        this.inputMetadata = inputs.map(i => metadata(i, free));
        this.outputMetadata = outputs.map(o => metadata(o, free));
        for (const value of [...inputs, ...outputs]) this.types.set(value.name, value.type);
    }

    static async create(engine: Engine, model: Model, options: HandlerOptions): Promise<SessionHandler> {
        const handler = new SessionHandler(engine, model, options);
        if (model.inputs.every(i => i.dims)) await handler.plan();
        return handler;
    }

    /* The session for these feeds; without any for all. */
    private async plan(feeds?: Feeds): Promise<void> {
        const ranks = this.model.inputs.map(({name, dims}) => (feeds && !dims ? feeds[name].dims.length : -1));
        const key = ranks.join();
        let session = this.sessions.get(key);
        if (!session) {
            session = await this.model.createSession({profile: this.options.profile, inputRanks: ranks});
            this.sessions.set(key, session);
        }
        this.session = session;
        if (this.sessions.size > 1) return;
        session.statePairs.forEach(({past, present}, i) => {
            this.pairOfPast.set(past, i);
            this.pairOfPresent.set(present, i);
        });
        this.keeps = session.statePairs.length > 0;
    }

    /** One run after the other, in the order of the calls. */
    run(feeds: Feeds, fetches: Fetches, options: RunOptions): Promise<Feeds> {
        const mine = this.last.then(() => this.runNow(feeds, fetches, options));
        this.last = mine.catch(() => {});
        return mine;
    }

    private async runNow(feeds: Feeds, fetches: Fetches, options: RunOptions): Promise<Feeds> {
        const signal = terminateSignal(options), wanted = Object.keys(fetches);
        await this.plan(feeds);
        const lease = this.keeps ? this.lease(feeds, wanted) : undefined;
        const inside = new Set(lease ? this.session.statePairs.map(p => p.past) : []);
        try {
            const inputs: Record<string, EngineTensor> = {};
            for (const name of this.inputNames) {
                if (!inside.has(name)) inputs[name] = await this.input(name, feeds[name]);
            }
            const outputs = lease ? wanted.filter(name => !this.pairOfPresent.has(name)) : wanted;
            const made = await this.session.run({inputs, outputs, states: lease?.states, signal});
            return await this.results(fetches, made, lease);
        } finally {
            lease?.release();
        }
    }

    /* The states that the run is to extend; undefined: its past comes and goes as tensors. */
    private lease(feeds: Feeds, wanted: string[]): Lease | undefined {
        if (!wanted.some(name => this.pairOfPresent.has(name))) return undefined;
        const pasts = this.session.statePairs.map(({past}) => feeds[past]);
        const [first] = pasts;
        if (first instanceof PastTensor && first.lease.session === this.session) {
            const same = pasts.every((t, i) => t instanceof PastTensor && t.isHeld &&
                                     t.lease === first.lease && t.pair === i);
            return same ? first.lease.follow() : undefined;
        }
        const batch = feeds[this.inputNames.find(name => !this.pairOfPast.has(name))!].dims[0];
        if (!pasts.every((t, i) => this.isEmpty(t, i) && t.dims[0] === batch)) return undefined;
        try {
            return Lease.empty(this.session, batch);
        } catch (e) {
            if (!(e instanceof DibitError) || e.status !== 'UNSUPPORTED') throw e;
            this.keeps = false;
            return undefined;
        }
    }

    /* A past that has not begun: of no rows, or the zeros of a state that does not grow. */
    private isEmpty(tensor: Tensor, pair: number): boolean {
        if (tensor instanceof PastTensor) return false;
        if (elementCount(tensor.dims) === 0) return true;
        const {past} = this.session.statePairs[pair];
        const dims = this.model.inputs.find(i => i.name === past)!.dims;
        return !!dims && dims.slice(1).every(d => typeof d === 'number') && tensor.location === 'cpu' &&
            (tensor.data as Float32Array).every(x => x === 0);
    }

    private async input(name: string, tensor: Tensor): Promise<EngineTensor> {
        const type = engineType(tensor.type), wanted = this.types.get(name)!;
        if (type !== wanted) {
            throw new DibitError('BAD_INPUT', `input '${name}' is ${tensor.type}, and the model takes ${
                ortType(wanted, name)}`);
        }
        if (type === 'string') throw new DibitError('UNSUPPORTED', `input '${name}' has strings`);
        const data = tensor.location === 'cpu' || tensor.location === 'cpu-pinned' ? tensor.data
            : await tensor.getData();
        return {type, dims: tensor.dims, data: data as EngineTensor['data']};
    }

    private async results(fetches: Fetches, made: Record<string, EngineTensor>, lease?: Lease): Promise<Feeds> {
        const results: Feeds = {}, grown = lease?.grown();
        /* Until there are handles. */
        grown?.hold();
        try {
            for (const [name, given] of Object.entries(fetches)) {
                const pair = this.pairOfPresent.get(name);
                if (!grown || pair === undefined) {
                    results[name] = ortTensor(made[name], `'${name}'`);
                } else {
                    results[name] = await this.present(grown, pair, name);
                }
                if (given) results[name] = fill(given, results[name], name);
            }
        } finally {
            grown?.drop();
        }
        return results;
    }

    private async present(lease: Lease, pair: number, name: string): Promise<Tensor> {
        const onCpu = this.engine.device !== 'webgpu';
        const tensor = new PastTensor(lease, pair, this.types.get(name)!, onCpu);
        if (!onCpu && !this.options.stays(name)) await tensor.bring();
        return tensor;
    }

    async dispose(): Promise<void> {
        await this.last;
        this.engine.dispose();
    }

    startProfiling(): void {
        for (const session of this.sessions.values()) session.resetProfile();
    }

    /** Steps and their times go to the console, as onnxruntime-web does. */
    endProfiling(): void {
        console.table([...this.sessions.values()].flatMap(s => s.steps()).filter(s => s.runs > 0).map(
            ({name, op, device, kernel, runs, seconds}) => ({name, op, device, kernel, runs, ms: 1e3 * seconds})));
    }
}

/* Into a tensor that the caller has. */
function fill(given: Tensor, made: Tensor, name: string): Tensor {
    const same = given.type === made.type && given.dims.length === made.dims.length &&
        given.dims.every((d, i) => d === made.dims[i]);
    if (!same || given.location !== 'cpu') {
        throw new DibitError('BAD_ARGUMENT', `the tensor for output '${name}' is ${given.location} ${given.type} [${
            given.dims.join(', ')}], and it is ${made.type} [${made.dims.join(', ')}]`);
    }
    (given.data as Uint8Array).set(made.data as Uint8Array);
    return given;
}
