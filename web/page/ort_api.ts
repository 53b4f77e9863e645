/* As much of onnxruntime's API as the benchmarks use: dibit/ort and onnxruntime-web both have it. */

export type Device = 'webgpu' | 'wasm';

export interface OrtTensor {
    dims: readonly number[];
    getData(): Promise<unknown>;
    dispose(): void;
}

export type Feeds = Record<string, OrtTensor>;

export interface OrtSession {
    readonly inputNames: readonly string[];
    readonly outputNames: readonly string[];
    readonly inputMetadata: readonly {name: string; type?: string; shape?: readonly (number | string)[]}[];
    run(feeds: Feeds): Promise<Feeds>;
    release(): Promise<void>;
}

export interface External {
    path: string;
    data: string;
}

export interface Ort {
    env: {wasm: {numThreads?: number; wasmPaths?: unknown}; versions?: {web?: string}};
    Tensor: new (type: string, data: Float32Array | Uint16Array | BigInt64Array, dims: number[]) => OrtTensor;
    InferenceSession: {create(model: string | Uint8Array, options: {
        executionProviders: Device[]; externalData?: External[]; preferredOutputLocation?: Record<string, string>;
    }): Promise<OrtSession>};
}

/** Where onnxruntime-web comes from: its folder, with a / at the end. */
export async function loadPeer(folder: string, device: Device): Promise<Ort> {
    const ort = await import(`${folder}${device === 'webgpu' ? 'ort.webgpu.min.mjs' : 'ort.wasm.min.mjs'}`) as Ort;
    ort.env.wasm.wasmPaths = folder;
    ort.env.wasm.numThreads = 1;
    return ort;
}
