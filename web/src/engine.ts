/* The engine for JavaScript: classes over include/dibit/dibit.h. Nothing here blocks: work is begun and polled
 * for, and between two polls the page, or the network, has its turn.
 *
 *     const engine = await Engine.create({device: 'auto'});
 *     const model = await engine.loadModel('model.onnx');
 *     const session = await model.createSession();
 *     const {y} = await session.run({inputs: {x: {type: 'float', dims: [4], data: new Float32Array(4)}}});
 *     engine.dispose();
 *
 * dispose() frees a thing and all that was made from it; using it afterwards is BAD_STATE. A GPU that is lost
 * makes every call fail with DEVICE_LOST, and everything can still be disposed of. */
import type {Input, ModelSource} from './input.js';
import {Gpus, OpenedDevice, deviceName, requestDevice, wrapDevice} from './gpu.js';
import {loadBinary, WasmSource} from './binary.js';
import {Sources} from './source.js';
import {openStore, StoreOptions} from './store.js';
import {ACTIVATIONS, DibitError, OK, Pointer, Scope, Wasm} from './wasm.js';
import {readTensorDims, readTensorStruct, readValueInfo, Tensor, ValueInfo, writeInputs} from './tensor.js';

export {DibitError};
export {evict, storedFiles} from './store.js';
export type {StoredFile, StoreOptions} from './store.js';
export type {ModelSource, Tensor, ValueInfo};

export type DeviceChoice = 'auto' | 'webgpu' | 'wasm' | 'null';

export interface EngineOptions {
    /** The binary: a URL, its bytes or a module; default: beside this file, with relaxed SIMD if it is there. */
    wasm?: WasmSource;
    /** auto (default): WebGPU on a GPU, else the CPU in wasm. webgpu: also on adapters that compute on the
     * CPU. null checks what it is given and computes nothing: for tests. */
    device?: DeviceChoice;
    /** A device to use, with what the engine needs beyond it left out. It is not destroyed with the engine. */
    gpuDevice?: GPUDevice;
}

export interface LoadOptions {
    /** External data by the name that the model has for it; else it is looked for beside the model. */
    external?: Record<string, ModelSource>;
    /** Keep what comes over the network; default: not. */
    cache?: boolean | StoreOptions;
    /** How errors call the model. */
    name?: string;
    /** Bytes of the model and its external data that have come; also while a session is created. */
    onProgress?(progress: Progress): void;
    signal?: AbortSignal;
}

export interface Progress {
    /** The file that bytes came of. */
    file: string;
    loaded: number;
    /** Of the files that are known so far: external data counts once it is opened. */
    total: number;
}

export interface SessionOptions {
    activations?: 'auto' | 'float' | 'int8';
    profile?: boolean;
    keepValues?: boolean;
    keepBounds?: boolean;
    noFusion?: boolean;
    noProof?: boolean;
    /** Not 0: values are moved at random within their rounding bounds. */
    noiseSeed?: bigint;
    /** Where the GPU cannot do it, because it was lost, has no memory left or cannot run the model, the CPU
     * does: at once while the session is created, and after leaveDevice() later. */
    cpuFallback?: boolean;
    /** Ranks of the model's inputs, in their order: for those whose dims are null. */
    inputRanks?: number[];
    /** Logits whose next tokens the device chooses, and the input that takes them. */
    sampleOutput?: string;
    feedInput?: string;
    signal?: AbortSignal;
}

export interface Run {
    inputs: Record<string, Tensor>;
    /** Names; default: all that do not stay in states. */
    outputs?: string[];
    /** One per row of the batch. */
    states?: State[];
    /** Only the last rows of outputs that depend on the last layers row by row; 0: all. */
    lastRows?: number;
    signal?: AbortSignal;
}

export interface SessionInfo {
    /** The device's name; the CPU's when the session has left the GPU. */
    device: string;
    /** Bytes of weights that are used, of copies of weights in another form, of the plan, of values. */
    weightBytes: number;
    packedBytes: number;
    planBytes: number;
    workspaceBytes: number;
    steps: number;
    cpuSteps: number;
    /** Steps that move a value between devices. */
    copies: number;
    int8Activations: boolean;
    hasStates: boolean;
    samples: boolean;
    runsAhead: boolean;
}

/** What runs where, and why. */
export interface Step {
    name: string;
    op: string;
    device: string;
    kernel: string;
    why: string;
    runs: number;
    seconds: number;
}

export interface StatePair {
    past: string;
    present: string;
}

/** A thing of the engine's that is destroyed once, after all that was made from it. */
abstract class Handle {
    private readonly children = new Set<Handle>();
    private destroyed = false;

    constructor(private readonly parent: Handle | null) {
        parent?.children.add(this);
    }

    get isDisposed(): boolean {
        return this.destroyed;
    }

    protected check(what: string): void {
        if (this.destroyed) throw new DibitError('BAD_STATE', `the ${what} was disposed of`);
    }

    dispose(): void {
        if (this.destroyed) return;
        this.destroyed = true;
        for (const child of [...this.children]) child.dispose();
        this.parent?.children.delete(this);
        this.destroy();
    }

    [Symbol.dispose](): void {
        this.dispose();
    }

    protected abstract destroy(): void;
}

/** One after the other. */
class Lock {
    private last: Promise<unknown> = Promise.resolve();

    run<T>(work: () => Promise<T>): Promise<T> {
        const mine = this.last.then(work);
        this.last = mine.catch(() => {});
        return mine;
    }
}

/** What the code in this folder shares of an engine; not for callers. */
export interface Core {
    wasm: Wasm;
    sources: Sources;
    device: Pointer;
    /** Loads of models and weights: one at a time has the readers for itself. */
    loads: Lock;
}

/* DIBIT_ISA_WASM_RELAXED_SIMD of dibit.h */
const ISA_RELAXED_SIMD = 1n << 33n;

export class Engine extends Handle {
    /** One line for people; why this device, if there was a choice. */
    readonly deviceName: string;
    readonly why: string;
    /** Whether the binary with relaxed SIMD runs. */
    readonly relaxed: boolean;

    private constructor(readonly core: Core, readonly device: 'webgpu' | 'wasm' | 'null', why: string,
                        /** The GPU, on 'webgpu'. */
                        readonly gpu: OpenedDevice | null) {
        super(null);
        const {wasm} = core;
        this.deviceName = device === 'webgpu' ? deviceName(gpu!)
            : wasm.string(wasm.call('dibit_device_name', core.device));
        this.why = why;
        this.relaxed = (BigInt(wasm.call('dibit_cpu_isa')) & ISA_RELAXED_SIMD) !== 0n; /* as it was compiled */
    }

    static async create(options: EngineOptions = {}): Promise<Engine> {
        const wanted = options.device ?? 'auto';
        if (!['auto', 'webgpu', 'wasm', 'null'].includes(wanted)) {
            throw new DibitError('BAD_ARGUMENT', `there is no device '${wanted}': auto, webgpu, wasm or null`);
        }
        const binary = loadBinary(options.wasm);
        binary.catch(() => {}); /* looked at below */
        const {gpu, why} = await chooseGpu(wanted, options.gpuDevice);
        try {
            let sources!: Sources, gpus!: Gpus;
            const wasm = await Wasm.instantiate(await binary, wasm => {
                sources = new Sources(wasm);
                gpus = new Gpus(wasm, sources);
                return {dibit_gpu: gpus.imports(), dibit_source: sources.imports()};
            });
            const kind = gpu ? 'webgpu' : wanted === 'null' ? 'null' : 'wasm';
            using scope = new Scope(wasm);
            const desc = scope.struct('dibit_device_desc', {
                kind: {wasm: 0, null: 1, webgpu: 2}[kind], webgpu_device: gpu ? gpus.offer(gpu) : 0, n_threads: 1,
            });
            const out = scope.zeros(4);
            wasm.try('dibit_device_create', desc, out);
            const core = {wasm, sources, device: wasm.view.getUint32(out, true), loads: new Lock()};
            return new Engine(core, kind, why, gpu);
        } catch (e) {
            if (gpu?.isOwn) gpu.device.destroy();
            throw e;
        }
    }

    /** Reads a model's structure. Weights are read when a session is created. */
    loadModel(source: ModelSource, options: LoadOptions = {}): Promise<Model> {
        this.check('engine');
        return this.core.loads.run(() => Model.load(this, source, options));
    }

    /** Bytes of the engine's memory; a GPU's is not in it. */
    get memoryBytes(): number {
        return this.core.wasm.memoryBytes;
    }

    /** Kernels that failed their proof on this GPU so far, and were left out for plainer ones: answers are right, but
     * something is wrong with the GPU, its driver or a kernel. `dibit/verify` names it. */
    get droppedKernels(): number {
        this.check('engine');
        return this.core.wasm.call('dibit_device_dropped_kernels', this.core.device);
    }

    protected destroy(): void {
        const {wasm, device} = this.core;
        destroyHandle(wasm, 'dibit_device_destroy', device);
    }
}

async function chooseGpu(wanted: DeviceChoice, given: GPUDevice | undefined):
    Promise<{gpu: OpenedDevice | null; why: string}> {
    if (wanted === 'wasm' || wanted === 'null') return {gpu: null, why: ''};
    const gpu = await (given ? wrapDevice(given) : requestDevice());
    if (typeof gpu === 'string') {
        if (wanted === 'webgpu') throw new DibitError('DEVICE_UNAVAILABLE', gpu);
        return {gpu: null, why: `${gpu}, so the CPU computes`};
    }
    if (wanted === 'webgpu' || given) return {gpu, why: ''};
    if (!gpu.isSoftware) return {gpu, why: 'WebGPU has a GPU'};
    if (gpu.isOwn) gpu.device.destroy();
    return {gpu: null, why: `WebGPU has a software adapter alone, ${deviceName(gpu)}, so the CPU computes`};
}

/** Functions of dibit.h destroy by the address of the pointer. */
function destroyHandle(wasm: Wasm, name: string, handle: Pointer): void {
    using scope = new Scope(wasm);
    const at = scope.zeros(4);
    wasm.view.setUint32(at, handle, true);
    wasm.call(name, at);
}

export class Model extends Handle {
    readonly inputs: ValueInfo[];
    readonly outputs: ValueInfo[];

    private constructor(readonly engine: Engine, readonly pointer: Pointer, private readonly source: number) {
        super(engine);
        const {wasm} = engine.core;
        using scope = new Scope(wasm);
        const info = scope.struct('dibit_value_info');
        const all = (side: 'input' | 'output') => Array.from(
            {length: wasm.call(`dibit_model_${side}_count`, pointer)}, (_, i) => {
                wasm.call(`dibit_model_${side}`, pointer, i, info);
                return readValueInfo(wasm, info);
            });
        this.inputs = all('input');
        this.outputs = all('output');
    }

    /** Through Engine.loadModel. */
    static async load(engine: Engine, from: ModelSource, options: LoadOptions): Promise<Model> {
        const {wasm, sources} = engine.core, {signal} = options;
        signal?.throwIfAborted();
        const {number, input} = await sources.open(from, {
            external: options.external, store: await openStore(options.cache), signal,
            onBytes: progressOf(options.onProgress),
        });
        using scope = new Scope(wasm);
        const out = scope.zeros(4);
        let model = 0;
        try {
            wasm.try('dibit_web_model_begin', number, BigInt(input.size), scope.string(options.name ?? input.name),
                     out);
            model = wasm.view.getUint32(out, true);
            await wasm.finish({signal}, 'dibit_model_poll', model);
            return new Model(engine, model, number);
        } catch (e) {
            if (model) destroyHandle(wasm, 'dibit_model_destroy', model);
            sources.close(number);
            throw e;
        } finally {
            sources.rest();
        }
    }

    /** Plans the model for the engine's device and brings its weights there. */
    createSession(options: SessionOptions = {}): Promise<Session> {
        this.check('model');
        return this.engine.core.loads.run(async () => {
            this.check('model');
            return Session.create(this, options);
        });
    }

    protected destroy(): void {
        const {wasm, sources} = this.engine.core;
        destroyHandle(wasm, 'dibit_model_destroy', this.pointer);
        sources.close(this.source);
    }
}

/** Sums what comes of each file; a byte that comes again does not count again. */
function progressOf(report: LoadOptions['onProgress']): ((input: Input, bytes: number) => void) | undefined {
    if (!report) return undefined;
    const files = new Map<string, {loaded: number; size: number}>();
    return (input, bytes) => {
        const file = files.get(input.name) ?? {loaded: 0, size: input.size};
        files.set(input.name, file);
        file.loaded = Math.min(file.size, file.loaded + bytes);
        let loaded = 0, total = 0;
        for (const f of files.values()) {
            loaded += f.loaded;
            total += f.size;
        }
        report({file: input.name, loaded, total});
    };
}


export class Session extends Handle {
    /** The past inputs that states replace, and the outputs that stay in them. */
    readonly statePairs: StatePair[] = [];
    private readonly runs = new Lock();

    private constructor(readonly model: Model, readonly pointer: Pointer,
                        /** What its desc points to. */ private readonly kept: Scope) {
        super(model);
        const {wasm} = this;
        using scope = new Scope(wasm);
        const past = scope.zeros(8), present = past + 4;
        for (let i = 0; wasm.call('dibit_session_state_pair', pointer, i, past, present) === OK; i++) {
            this.statePairs.push({
                past: wasm.string(wasm.view.getUint32(past, true)),
                present: wasm.string(wasm.view.getUint32(present, true)),
            });
        }
    }

    get wasm(): Wasm {
        return this.model.engine.core.wasm;
    }

    /** Through Model.createSession. */
    static async create(model: Model, options: SessionOptions): Promise<Session> {
        const {wasm, sources, device} = model.engine.core;
        options.signal?.throwIfAborted();
        using scope = new Scope(wasm);
        const kept = new Scope(wasm);
        const name = (text: string | undefined) => text === undefined ? 0 : kept.string(text);
        const ranks = options.inputRanks ? kept.data(new Uint8Array(Int32Array.from(options.inputRanks).buffer)) : 0;
        const desc = scope.struct('dibit_session_desc', {
            device, activations: ACTIVATIONS[options.activations ?? 'auto'], profile: !!options.profile,
            keep_values: !!options.keepValues, keep_bounds: !!options.keepBounds,
            no_fusion: !!options.noFusion, no_proof: !!options.noProof, noise_seed: options.noiseSeed ?? 0n,
            cpu_fallback: !!options.cpuFallback, input_ranks: ranks, sample_output: name(options.sampleOutput),
            feed_input: name(options.feedInput),
        });
        const out = scope.zeros(4);
        let session = 0;
        try {
            wasm.try('dibit_session_begin', model.pointer, desc, out);
            session = wasm.view.getUint32(out, true);
            await wasm.finish({signal: options.signal}, 'dibit_session_poll', session);
            if (model.isDisposed) throw new DibitError('BAD_STATE', 'the model was disposed of');
            return new Session(model, session, kept);
        } catch (e) {
            if (session) destroyHandle(wasm, 'dibit_session_destroy', session);
            kept[Symbol.dispose]();
            throw e;
        } finally {
            sources.rest();
        }
    }

    /** Runs begun while another is under way wait for it. */
    run(run: Run): Promise<Record<string, Tensor>> {
        this.check('session');
        return this.runs.run(() => this.runNow(run));
    }

    private async runNow(run: Run): Promise<Record<string, Tensor>> {
        this.check('session');
        run.signal?.throwIfAborted();
        const {wasm} = this;
        using scope = new Scope(wasm);
        const states = run.states ?? [];
        const names = run.outputs ?? this.outputNames(states.length > 0);
        const size = wasm.size('dibit_tensor'), inputs = writeInputs(scope, run.inputs), outs = scope.zeros(size * names.length);
        names.forEach((name, i) => wasm.set('dibit_tensor', outs + size * i, 'name', scope.string(name)));
        const handles = scope.zeros(4 * states.length);
        states.forEach((state, i) => wasm.view.setUint32(handles + 4 * i, state.handle, true));
        const desc = scope.struct('dibit_run', {
            ...inputs, outputs: outs, n_outputs: names.length,
            states: states.length ? handles : 0, n_states: states.length, last_rows: run.lastRows ?? 0,
        });
        wasm.try('dibit_run_begin', this.pointer, desc);
        try {
            await wasm.finish({signal: run.signal}, 'dibit_run_poll', this.pointer);
        } catch (e) {
            if (!(e instanceof DibitError) && !this.isDisposed) wasm.call('dibit_run_cancel', this.pointer);
            throw e;
        }
        return Object.fromEntries(names.map((name, i) => [name, readTensorStruct(wasm, outs + size * i)]));
    }

    /** Why the session has left its device; '' when it has not. */
    get why(): string {
        this.check('session');
        return this.wasm.string(this.wasm.call('dibit_session_why', this.pointer));
    }

    /** With cpuFallback: whether the CPU may do what failed on the GPU with this error. */
    mayLeave(error: unknown): boolean {
        return error instanceof DibitError && !this.isDisposed && 
            this.wasm.call('dibit_session_may_leave', this.pointer, this.wasm.statusOf(error.status)) !== 0;
    }

    /** Plans anew for the CPU; states lose what they hold. */
    leaveDevice(error: DibitError, signal?: AbortSignal): Promise<void> {
        this.check('session');
        const {wasm, model: {engine: {core}}} = this;
        return core.loads.run(async () => {
            this.check('session');
            using scope = new Scope(wasm);
            const why = scope.struct('dibit_error');
            wasm.fail(why, wasm.statusOf(error.status), error.message);
            wasm.try('dibit_session_leave_device', this.pointer, why);
            try {
                await wasm.finish({signal}, 'dibit_session_poll', this.pointer);
            } finally {
                core.sources.rest();
            }
        });
    }

    private outputNames(withStates: boolean): string[] {
        const inside = new Set(withStates ? this.statePairs.map(pair => pair.present) : []);
        return this.model.outputs.map(output => output.name).filter(name => !inside.has(name));
    }

    /** UNSUPPORTED when the model has no past and present. */
    createState(options: {capacity?: number; maxCapacity?: number} = {}): State {
        this.check('session');
        const {wasm} = this;
        using scope = new Scope(wasm);
        const out = scope.zeros(4);
        wasm.try('dibit_state_create', this.pointer, scope.struct('dibit_state_desc', {
            capacity: options.capacity ?? 0, max_capacity: options.maxCapacity ?? 0,
        }), out);
        return new State(this, wasm.view.getUint32(out, true));
    }

    /** What State.export gave, from a session of the same model. */
    importState(bytes: Uint8Array): State {
        this.check('session');
        const {wasm} = this;
        using scope = new Scope(wasm);
        const out = scope.zeros(4);
        wasm.try('dibit_state_import', this.pointer, scope.data(bytes), BigInt(bytes.length), out);
        return new State(this, wasm.view.getUint32(out, true));
    }

    /** With keepValues: a value of the last run, by its name in the model. */
    value(name: string): Tensor {
        return this.readValue('dibit_session_value', name);
    }

    /** With keepBounds: how far another device's elements may be from those of value(name). */
    bound(name: string): Tensor {
        return this.readValue('dibit_session_bound', name);
    }

    private readValue(call: string, name: string): Tensor {
        this.check('session');
        const {wasm} = this;
        using scope = new Scope(wasm);
        const out = scope.struct('dibit_tensor');
        wasm.try(call, this.pointer, scope.string(name), out);
        return readTensorStruct(wasm, out);
    }

    info(): SessionInfo {
        this.check('session');
        const {wasm} = this;
        using scope = new Scope(wasm);
        const at = scope.struct('dibit_session_info');
        wasm.call('dibit_session_get_info', this.pointer, at);
        const get = (field: string) => wasm.get('dibit_session_info', at, field);
        return {
            device: wasm.string(get('device')), weightBytes: get('weight_bytes'), packedBytes: get('packed_bytes'),
            planBytes: get('plan_bytes'),
            workspaceBytes: get('workspace_bytes'), steps: get('n_steps'), cpuSteps: get('n_cpu_steps'),
            copies: get('n_copies'), int8Activations: get('int8_activations') !== 0,
            hasStates: get('has_states') !== 0, samples: get('samples') !== 0, runsAhead: get('runs_ahead') !== 0,
        };
    }

    steps(): Step[] {
        this.check('session');
        const {wasm} = this, steps: Step[] = [];
        using scope = new Scope(wasm);
        const at = scope.struct('dibit_step_info');
        while (wasm.call('dibit_session_step', this.pointer, steps.length, at) === OK) {
            const get = (field: string) => wasm.get('dibit_step_info', at, field);
            const text = (field: string) => wasm.string(get(field));
            steps.push({
                name: text('name'), op: text('op'), device: text('device'), kernel: text('kernel'),
                why: text('why'), runs: get('runs'), seconds: get('seconds'),
            });
        }
        return steps;
    }

    resetProfile(): void {
        this.check('session');
        this.wasm.call('dibit_session_profile_reset', this.pointer);
    }

    protected destroy(): void {
        destroyHandle(this.wasm, 'dibit_session_destroy', this.pointer);
        this.kept[Symbol.dispose]();
    }
}

/** The past of one sequence. */
export class State extends Handle {
    /** Through Session.createState, importState and fork. */
    constructor(readonly session: Session, private readonly pointer: Pointer) {
        super(session);
    }

    /** The engine's dibit_state. */
    get handle(): Pointer {
        this.check('state');
        return this.pointer;
    }

    /** Tokens that it holds. */
    get length(): number {
        return this.session.wasm.call('dibit_state_length', this.handle);
    }

    /** Tokens that it has room for, before it grows. */
    get capacity(): number {
        return this.session.wasm.call('dibit_state_capacity', this.handle);
    }

    /** What it held went with the device that the session has left; truncate(0) makes it new. */
    get isLost(): boolean {
        return this.session.wasm.call('dibit_state_is_lost', this.handle) !== 0;
    }

    /** An independent copy. */
    fork(): State {
        const {wasm} = this.session;
        using scope = new Scope(wasm);
        const out = scope.zeros(4);
        wasm.try('dibit_state_fork', this.handle, out);
        return new State(this.session, wasm.view.getUint32(out, true));
    }

    /** Drops all but the first tokens. */
    truncate(length: number): void {
        this.session.wasm.try('dibit_state_truncate', this.handle, BigInt(length));
    }

    /** What it holds of pair number `pair` after its first `length` tokens, as the model's present output. */
    async read(pair: number, length: number): Promise<Tensor> {
        const {wasm} = this.session;
        using scope = new Scope(wasm);
        const out = this.readInto(scope, pair, length);
        await wasm.finish({}, 'dibit_state_read', this.handle, pair, BigInt(length), out);
        return readTensorStruct(wasm, out);
    }

    /** The same on the CPU, where nothing has to be waited for. */
    readNow(pair: number, length: number): Tensor {
        const {wasm} = this.session;
        using scope = new Scope(wasm);
        const out = this.readInto(scope, pair, length);
        if (wasm.try('dibit_state_read', this.handle, pair, BigInt(length), out) !== OK) {
            throw new DibitError('BAD_STATE', 'the state is on a GPU: what it holds has to be waited for');
        }
        return readTensorStruct(wasm, out);
    }

    /** The dims of what read() gives. */
    dims(pair: number, length: number): number[] {
        const {wasm} = this.session;
        using scope = new Scope(wasm);
        const out = scope.struct('dibit_tensor');
        wasm.try('dibit_state_read', this.handle, pair, BigInt(length), out);
        return readTensorDims(wasm, out);
    }

    /* A tensor with room for it. */
    private readInto(scope: Scope, pair: number, length: number): Pointer {
        const {wasm} = this.session, out = scope.struct('dibit_tensor');
        wasm.try('dibit_state_read', this.handle, pair, BigInt(length), out);
        wasm.set('dibit_tensor', out, 'data', scope.alloc(wasm.get('dibit_tensor', out, 'bytes')));
        return out;
    }

    /** For importState of a session of the same model. */
    async export(): Promise<Uint8Array> {
        const {wasm} = this.session;
        using scope = new Scope(wasm);
        const bytes = scope.zeros(8);
        wasm.try('dibit_state_export', this.handle, 0, bytes);
        const n = Number(wasm.view.getBigUint64(bytes, true)), data = scope.alloc(n);
        await wasm.finish({}, 'dibit_state_export', this.handle, data, bytes);
        return wasm.bytes.slice(data, data + n);
    }

    protected destroy(): void {
        destroyHandle(this.session.wasm, 'dibit_state_destroy', this.pointer);
    }
}
