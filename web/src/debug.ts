/* What verify, diff and trace share: where they run, and what models they take. */
import {Engine} from './engine.js';
import {openFolder} from './folder.js';
import {findModel, readJson} from './model_file.js';
import {openStore} from './store.js';
import {DibitError, Pointer, Scope, Wasm} from './wasm.js';
import {readTensorStruct, Tensor} from './tensor.js';

import type {DeviceChoice, EngineOptions, LoadOptions, Model} from './engine.js';
import type {ModelFiles} from './folder.js';
import type {ModelSource} from './input.js';

/* build.mjs sets it. */
declare const DIBIT_VERSION: string;

/** Where it runs. */
export interface DeviceOptions {
    device?: DeviceChoice;
    /** A device that the page has already. */
    gpuDevice?: GPUDevice;
    wasm?: EngineOptions['wasm'];
    signal?: AbortSignal;
}

/** What a report says of where it was made. */
export interface Place {
    version: string;
    device: string;
    why: string;
    /** Browser or runtime, as it calls itself. */
    runtime: string;
    binary: string;
    adapter?: {vendor: string; architecture: string; description: string; isFallbackAdapter: boolean};
    features?: string[];
    limits?: Record<string, number>;
    seconds: number;
}

/** A model as `load` of 'dibit' takes it, or as the engine does. */
export type DebugModel = ModelFiles | ModelSource;

/** What a model is run on, and how. */
export interface ModelOptions extends DeviceOptions {
    /** The model's file inside of the folder, where it is none of the usual names. */
    model?: string;
    /** Keep what comes over the network, since it is read several times; default true. */
    cache?: LoadOptions['cache'];
    /** The model's inputs by name; default: a prompt that is made up. */
    input?: Record<string, Tensor>;
    /** Length of a prompt that is made up; default 5. */
    tokens?: number;
    /** For another prompt; default 1. */
    seed?: number;
    activations?: 'auto' | 'float' | 'int8';
    /** Each node is a step of its own. */
    noFusion?: boolean;
    /** Kernels that fail their proof on this device are used too, so that they are looked at. */
    noProof?: boolean;
}

export function describe(engine: Engine, began: number): Place {
    const {gpu} = engine, {navigator, process} = globalThis as {
        navigator?: {userAgent?: string};
        process?: {versions?: Record<string, string>; platform?: string; arch?: string};
    }, {node, deno} = process?.versions ?? {}; /* Deno says both */
    const limits: Record<string, number> = {};
    if (gpu) for (const name in gpu.device.limits) limits[name] = gpu.device.limits[name as keyof GPUSupportedLimits] as number;
    return {
        version: DIBIT_VERSION, device: engine.deviceName, why: engine.why,
        runtime: node ? `${deno ? `Deno ${deno}` : `Node ${node}`}, ${process!.platform} ${process!.arch}`
            : navigator?.userAgent ?? 'unknown',
        binary: engine.relaxed ? 'relaxed SIMD' : 'SIMD',
        ...(gpu && {adapter: {...gpu.adapter}, features: [...gpu.device.features].sort(), limits}),
        seconds: (performance.now() - began) / 1000,
    };
}

function isSource(model: DebugModel): model is ModelSource {
    if (typeof model === 'string' || model instanceof URL) return false;
    return model instanceof Blob || model instanceof ArrayBuffer || ArrayBuffer.isView(model) ||
        'url' in model || 'files' in model;
}

async function findSource(model: DebugModel, options: ModelOptions): Promise<ModelSource> {
    if (isSource(model)) return model;
    const folder = openFolder(model, {store: await openStore(options.cache ?? true), signal: options.signal});
    const genai = options.model ?? folder.model ? undefined : await readJson(folder, 'genai_config.json');
    return (await findModel(folder, {genai}, options.model)).source;
}

/** Opens engine and model, and disposes of them after the work. */
export async function withModel<T>(model: DebugModel, options: ModelOptions,
                                   onProgress: ((loaded: number, total: number) => void) | undefined,
                                   work: (engine: Engine, model: Model) => Promise<T>): Promise<T> {
    const {signal} = options, source = await findSource(model, options);
    const engine = await Engine.create({...options, device: options.device ?? 'webgpu'});
    try {
        const loaded = await engine.loadModel(source, {
            signal, cache: options.cache ?? true, onProgress: p => onProgress?.(p.loaded, p.total),
        });
        return await work(engine, loaded);
    } finally {
        engine.dispose();
    }
}

/** The prompt that dibit_tensors_make_up makes for a session. */
export function makeInputs(wasm: Wasm, session: Pointer, tokens: number, seed: number): Record<string, Tensor> {
    using scope = new Scope(wasm);
    const out = scope.zeros(4);
    wasm.try('dibit_tensors_make_up', session, tokens, BigInt(seed), out);
    const set = wasm.view.getUint32(out, true), input: Record<string, Tensor> = {};
    try {
        for (let i = 0, n = wasm.call('dibit_tensors_count', set); i < n; i++) {
            const at = wasm.call('dibit_tensors_get', set, i);
            input[wasm.string(wasm.get('dibit_tensor', at, 'name'))] = readTensorStruct(wasm, at);
        }
        return input;
    } finally {
        wasm.call('dibit_tensors_destroy', out);
    }
}

/** null where JSON has no such number. */
export function finite(value: number): number | null {
    return Number.isFinite(value) ? value + 0 : null; /* no -0 */
}

export function checkCount(name: string, value: number, most: number): number {
    if (Number.isInteger(value) && value >= 1 && value <= most) return value;
    throw new DibitError('BAD_ARGUMENT', `${name} is 1 to ${most}`);
}
