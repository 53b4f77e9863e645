/* onnxruntime's JavaScript API on Dibit: an alias for onnxruntime-web, onnxruntime-web/webgpu and
 * onnxruntime-node, for transformers.js and any other program that uses InferenceSession, Tensor and env. */
import * as common from 'onnxruntime-common';

import {loadBinary} from './binary.js';
import {Engine} from './engine.js';
import {requestDevice} from './gpu.js';
import {SessionHandler} from './ort_session.js';

import type {EngineOptions, ModelSource} from './engine.js';

type SessionOptions = common.InferenceSession.SessionOptions;
type ExternalData = NonNullable<SessionOptions['externalData']>[number];

let binary: Promise<WebAssembly.Module> | undefined;

/* Compiled once; env.wasm.wasmPaths may say where it is, as a folder or as {wasm}. */
function engineBinary(): Promise<WebAssembly.Module> {
    const {wasmPaths, wasmBinary} = common.env.wasm;
    const path = typeof wasmPaths === 'string' ? undefined : wasmPaths?.wasm;
    const given = wasmBinary ?? (path && /dibit/.test(String(path)) ? path : undefined);
    binary ??= loadBinary(given as ArrayBuffer | string | URL | undefined);
    binary.catch(() => (binary = undefined));
    return binary;
}

/* A GPUDevice that all sessions share: the program's, or one of our own. */
async function sharedDevice(given: GPUDevice | undefined): Promise<GPUDevice> {
    if (given) return given;
    const known = common.env.webgpu.device as unknown as GPUDevice | undefined;
    if (known && !lost.has(known)) return known;
    opening ??= requestDevice().then(opened => {
        if (typeof opened === 'string') throw new Error(opened);
        const {device} = opened;
        void device.lost.then(() => lost.add(device));
        (common.env.webgpu as {device: unknown}).device = device;
        return device;
    }).finally(() => (opening = undefined));
    return opening;
}

let opening: Promise<GPUDevice> | undefined;
const lost = new WeakSet<GPUDevice>();

interface Provider {
    name: string;
    device?: GPUDevice;
}

const backend = {
    async init(name: string): Promise<void> {
        if (name === 'webgpu') await sharedDevice(undefined);
        await engineBinary();
    },

    async createInferenceSessionHandler(model: string | Uint8Array, options: SessionOptions = {}) {
        const providers = (options.executionProviders ?? []).map(
            p => typeof p === 'string' ? {name: p} : p) as Provider[];
        const [first] = providers, wasm = await engineBinary();
        const choice: EngineOptions = first?.name === 'webgpu'
            ? {device: 'webgpu', gpuDevice: await sharedDevice(first.device)} : {device: 'wasm'};
        const engine = await Engine.create({wasm, ...choice});
        try {
            const loaded = await engine.loadModel(model, {external: externalData(options.externalData)});
            return await SessionHandler.create(engine, loaded, {
                profile: !!options.enableProfiling,
                freeDimensions: {...options.freeDimensionOverrides},
                stays: output => location(options, output) === 'gpu-buffer',
            });
        } catch (e) {
            engine.dispose();
            throw e;
        }
    },
};

function location(options: SessionOptions, output: string): string | undefined {
    const preferred = options.preferredOutputLocation;
    return typeof preferred === 'object' ? preferred[output] : preferred;
}

function externalData(files: readonly ExternalData[] = []): Record<string, ModelSource> {
    return Object.fromEntries(files.map(file => {
        if (typeof file !== 'string') return [file.path, file.data as ModelSource];
        return [file.slice(file.replaceAll('\\', '/').lastIndexOf('/') + 1), file];
    }));
}

for (const name of ['webgpu', 'wasm', 'cpu']) common.registerBackend(name, backend, 10);

export * from 'onnxruntime-common';
export default common;
