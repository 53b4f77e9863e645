/* A language model in this thread: reads its folder, keeps what the last conversation left in the engine's
 * state, and turns text into tokens and back. The worker (worker.ts) and Node have their models as this. */
import {describe, insideTemplate, stopTokens} from './config.js';
import {Engine} from './engine.js';
import {openFolder} from './folder.js';
import {Generator} from './generator.js';
import {Generation} from './language.js';
import {findModel, parseJson, readJson} from './model_file.js';
import {openStore} from './store.js';
import {Text} from './text.js';
import {DibitError} from './wasm.js';

import type {LoadOptions as EngineLoadOptions, Model, Session, SessionOptions, State} from './engine.js';
import type {Folder, ModelFiles} from './folder.js';
import type {EmbedOptions, Explanation, GenerateOptions, GenerationInfo, KernelUse, LanguageModel, Message,
             ModelDescription, Pieces} from './language.js';
import type {Configs, FoundModel} from './model_file.js';

export interface Progress {
    /** What is being done: files are read, or the model is prepared for the device. */
    stage: 'tokenizer' | 'model' | 'prepare' | 'ready';
    /** Bytes that came, and bytes in all, as far as known; of the model's files. */
    loaded: number;
    total: number;
}

export interface InlineOptions {
    /** 'auto' takes a real GPU where WebGPU has one, and goes on on the CPU when it is lost. */
    device?: 'auto' | 'webgpu' | 'wasm';
    /** A device that the page has already; then the model does not run in a worker. */
    gpuDevice?: GPUDevice;
    /** The model's file inside of the folder, where it is none of the usual names. */
    model?: string;
    /** How activations are multiplied by low-bit weights: 'float' and 'int8' are the same arithmetic on every device. */
    activations?: SessionOptions['activations'];
    /** Keep what comes over the network, so that it comes once; default true. */
    cache?: EngineLoadOptions['cache'];
    /** Where the engine's binary is, if it is not beside the package's scripts. */
    wasm?: string | URL;
    onProgress?: (progress: Progress) => void;
    signal?: AbortSignal;
}

const DEFAULT_TOKENS = 1024;

/* What the folder says, besides the model itself. */
interface FolderContent {
    configs: Configs;
    template?: string;
    tokenizer?: string;
    pooling?: Record<string, unknown>;
    model: FoundModel;
}

async function readFolder(folder: Folder, wanted?: string): Promise<FolderContent> {
    const json = (name: string) => readJson(folder, name);
    const [config, generation, genai, tokenizerConfig, template, tokenizer, pooling] = await Promise.all([
        json('config.json'), json('generation_config.json'), json('genai_config.json'),
        json('tokenizer_config.json'), folder.text('chat_template.jinja'), folder.text('tokenizer.json'),
        json('1_Pooling/config.json'),
    ]);
    const configs = {config, generation, genai, tokenizer: tokenizerConfig};
    return {
        configs, tokenizer, pooling, template: template ?? insideTemplate(tokenizerConfig),
        model: await findModel(folder, configs, wanted),
    };
}

function randomSeed(): bigint {
    return crypto.getRandomValues(new BigUint64Array(1))[0];
}

export class InlineModel implements LanguageModel {
    private state?: State;
    /** The tokens that the state holds. */
    private held: number[] = [];
    /** Ends when what is under way has ended. */
    private turn: Promise<unknown> = Promise.resolve();
    private readonly ended = new AbortController();
    private readonly stops: number[];

    private constructor(private readonly text: Text, private readonly folder: FolderContent,
                        readonly model: ModelDescription, private readonly engine: Engine,
                        private readonly loaded: Model, private readonly session: Session,
                        private readonly generator: Generator | undefined) {
        this.stops = stopTokens(folder.configs, piece => text.id(piece), folder.template);
    }

    static async load(from: ModelFiles, options: InlineOptions = {}): Promise<InlineModel> {
        const {device = 'auto', gpuDevice, cache = true, onProgress, signal} = options;
        const progress: Progress = {stage: 'tokenizer', loaded: 0, total: 0};
        const tell = (change: Partial<Progress>) => onProgress?.(Object.assign(progress, change));
        tell({});
        const store = await openStore(cache);
        const folder = await readFolder(openFolder(from, {store, signal}), options.model);
        if (!folder.tokenizer) throw new DibitError('NOT_FOUND', 'the folder has no tokenizer.json');
        const text = new Text({
            tokenizer: parseJson('tokenizer.json', folder.tokenizer), config: folder.configs.tokenizer ?? {},
            template: folder.template,
        });
        folder.tokenizer = undefined;
        const engine = await Engine.create({wasm: options.wasm, device, gpuDevice});
        try {
            tell({stage: 'model'});
            const loaded = await engine.loadModel(folder.model.source, {
                signal, cache,
                onProgress: ({loaded, total}) => tell({loaded, total}),
            });
            tell({stage: 'prepare'});
            const generates = loaded.outputs.some(o => o.name === 'logits');
            const session = await loaded.createSession({
                signal, activations: options.activations, cpuFallback: device === 'auto',
                ...(generates && {sampleOutput: 'logits', feedInput: 'input_ids'}),
            });
            const model = {...describe(folder.configs, text.hasTemplate, generates), file: folder.model.name};
            const generator = generates
                ? new Generator(session, model.contextLength) : undefined;
            tell({stage: 'ready'});
            return new InlineModel(text, folder, model, engine, loaded, session, generator);
        } catch (e) {
            engine.dispose();
            throw e;
        }
    }

    chat(messages: Message[], options: GenerateOptions = {}): Generation {
        return new Generation(this.pieces(() => this.text.encodeChat(messages, options.template), options));
    }

    complete(text: string, options: GenerateOptions = {}): Generation {
        return new Generation(this.pieces(() => this.text.encode(text), options));
    }

    // ---- Generation ---------------------------------------------------------------------------

    /* Others wait until the returned function is called. */
    private async lock(): Promise<() => void> {
        const before = this.turn;
        let release!: () => void;
        this.turn = new Promise<void>(resolve => (release = resolve));
        await before;
        return release;
    }

    private async *pieces(encode: () => number[], options: GenerateOptions): Pieces {
        if (!this.generator) throw new Error('the model does not generate text: use embed()');
        const began = performance.now(), unlock = await this.lock();
        try {
            const signal = options.signal ? AbortSignal.any([options.signal, this.ended.signal])
                : this.ended.signal;
            signal.throwIfAborted();
            const prompt = encode();
            if (prompt.length === 0) throw new Error('the prompt has no tokens');
            return yield* this.generate(this.generator, prompt, {...options, signal}, began);
        } finally {
            unlock();
        }
    }

    private async *generate(generator: Generator, prompt: number[], options: GenerateOptions,
                            began: number): Pieces {
        const cached = this.reuse(prompt), state = this.state!;
        const {seed = randomSeed(), maxTokens = DEFAULT_TOKENS} = options, defaults = this.model.sampling;
        const sampling = {
            temperature: options.temperature ?? defaults.temperature, topK: options.topK ?? defaults.topK,
            topP: options.topP ?? defaults.topP, minP: options.minP ?? defaults.minP,
            repetitionPenalty: options.repetitionPenalty ?? defaults.repetitionPenalty, seed: BigInt(seed),
        };
        const info: GenerationInfo = {
            finish: 'cancelled', promptTokens: prompt.length, cachedTokens: cached, tokens: [], firstTokenMs: 0,
            tokensPerSecond: 0, seed: sampling.seed, fallback: '',
        };
        const stream = this.text.stream();
        const run = generator.run({
            state: state.handle, prompt: prompt.slice(cached), past: this.held, stop: this.stops, sampling,
            maxTokens, signal: options.signal,
        });
        let first = 0;
        try {
            for (;;) {
                const next = await run.next();
                if (next.done) {
                    info.finish = next.value;
                    break;
                }
                first ||= performance.now();
                info.tokens.push(...next.value);
                const piece = stream.push(...next.value);
                if (piece) yield piece;
            }
        } finally {
            await run.return('cancelled');
            this.held = [...prompt, ...info.tokens].slice(0, state.length);
            if (state.length > this.held.length) state.truncate(this.held.length);
        }
        const rest = stream.end();
        if (rest) yield rest;
        const ended = performance.now(), after = info.tokens.length - 1;
        info.firstTokenMs = first && first - began;
        info.tokensPerSecond = after > 0 && ended > first ? 1000 * after / (ended - first) : 0;
        info.fallback = this.session.why;
        return info;
    }

    /* Makes the state hold the longest beginning of the prompt that it held before, but for the last token,
     * which has to be fed. Gives its length. */
    private reuse(prompt: number[]): number {
        let n = 0;
        while (n < this.held.length && n < prompt.length - 1 && this.held[n] === prompt[n]) n++;
        if (this.state && n < this.held.length) {
            try {
                this.state.truncate(n);
            } catch { /* windows and convolutions forget */
                this.state.dispose();
                this.state = undefined;
            }
        }
        if (!this.state) {
            this.state = this.session.createState();
            n = 0;
        }
        this.held.length = n;
        return n;
    }

    // ---- Embeddings ---------------------------------------------------------------------------

    async embed(texts: string[], options: EmbedOptions = {}): Promise<Float32Array[]> {
        const unlock = await this.lock(), vectors: Float32Array[] = [];
        try {
            for (const text of texts) {
                options.signal?.throwIfAborted();
                this.ended.signal.throwIfAborted();
                vectors.push(await this.embedOne(this.text.encode(text), options));
            }
        } finally {
            unlock();
        }
        return vectors;
    }

    private async embedOne(ids: number[], options: EmbedOptions): Promise<Float32Array> {
        const known: Record<string, number[]> = {
            input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: ids.map(() => 0),
            position_ids: ids.map((_, i) => i),
        };
        const inputs = Object.fromEntries(this.loaded.inputs.map(({name}) => {
            if (!(name in known)) throw new Error(`input '${name}' is none that embed() knows`);
            return [name, {
                type: 'int64', dims: [1, ids.length], data: BigInt64Array.from(known[name], BigInt),
            }];
        }));
        const names = this.loaded.outputs.map(o => o.name);
        const output = ['sentence_embedding', 'last_hidden_state', 'token_embeddings', names[0]]
            .find(name => names.includes(name))!;
        const result = (await this.session.run({inputs, outputs: [output], signal: options.signal}))[output];
        const rows = toFloat32(result.type, result.data);
        const vector = result.dims.length < 3 ? rows
            : pool(rows, ids.length, options.pooling ?? advisedPooling(this.folder.pooling));
        return options.normalize ?? true ? normalized(vector) : vector;
    }

    // ---- The rest -----------------------------------------------------------------------------

    async explain(): Promise<Explanation> {
        const {session, engine} = this, info = session.info(), uses = new Map<string, KernelUse>();
        for (const step of session.steps()) {
            const key = JSON.stringify([step.op, step.device, step.kernel, step.why]);
            const use = uses.get(key) ?? {...step, steps: 0};
            use.steps++;
            uses.set(key, {op: use.op, device: use.device, kernel: use.kernel, why: use.why, steps: use.steps});
        }
        const gpu = session.why ? null : engine.gpu; /* one that was left computes nothing */
        return {
            device: info.device, why: session.why || engine.why, binary: engine.relaxed ? 'relaxed SIMD' : 'SIMD',
            adapter: gpu?.adapter, features: gpu ? [...gpu.device.features].sort() : undefined,
            memory: {
                weights: info.weightBytes, packed: info.packedBytes, plan: info.planBytes,
                workspace: info.workspaceBytes, wasm: engine.memoryBytes,
            },
            kernels: [...uses.values()], steps: info.steps, cpuSteps: info.cpuSteps,
        };
    }

    async dispose(): Promise<void> {
        this.ended.abort(new Error('the model was disposed of'));
        const unlock = await this.lock();
        try {
            this.generator?.dispose();
            this.engine.dispose();
        } finally {
            unlock();
        }
    }
}

function toFloat32(type: string, data: ArrayBufferView): Float32Array {
    if (type === 'float') return data as Float32Array;
    if (type === 'float16') return Float32Array.from(data as Uint16Array, fromHalf);
    throw new Error(`embeddings of type ${type} are not supported`);
}

function fromHalf(bits: number): number {
    const exponent = bits >> 10 & 31, fraction = bits & 1023, sign = bits & 0x8000 ? -1 : 1;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 1 + fraction / 1024 : fraction / 512) * 2 ** (exponent - 15);
}

function advisedPooling(config: Record<string, unknown> | undefined): 'mean' | 'cls' | 'last' {
    if (config?.pooling_mode_cls_token) return 'cls';
    return config?.pooling_mode_lasttoken ? 'last' : 'mean';
}

/* rows [n, width] to one vector. */
function pool(rows: Float32Array, n: number, how: 'mean' | 'cls' | 'last'): Float32Array {
    const width = rows.length / n;
    if (how !== 'mean') return rows.slice(how === 'cls' ? 0 : (n - 1) * width).slice(0, width);
    const mean = new Float32Array(width);
    for (let i = 0; i < width; i++) {
        let sum = 0;
        for (let row = 0; row < n; row++) sum += rows[row * width + i];
        mean[i] = sum / n;
    }
    return mean;
}

function normalized(vector: Float32Array): Float32Array {
    const length = Math.hypot(...vector);
    return length > 0 ? vector.map(x => x / length) : vector;
}
