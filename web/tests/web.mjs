// What the tests share: the engine as it is built, a web server, a GPU that keeps what it is given.
import {fork} from 'node:child_process';
import {fileURLToPath} from 'node:url';

export * from '../../build/web/dist/engine.js';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** A running server.mjs: {url, serve(file), forget(path), requests, stop()}. */
export async function startServer() {
    const child = fork(fileURLToPath(new URL('server.mjs', import.meta.url)));
    const requests = [], waiting = [];
    const next = () => new Promise(resolve => waiting.push(resolve));
    child.on('message', message => {
        if (message.request) requests.push(message.request);
        else waiting.shift()(message);
    });
    const {port} = await next();
    const tell = message => {
        const done = next();
        child.send(message);
        return done;
    };
    return {
        url: `http://127.0.0.1:${port}`, requests,
        serve: file => tell({...file, segments: file.segments.map(s => s.bytes
            ? {...s, bytes: Buffer.from(s.bytes).toString('base64')} : s)}),
        forget: path => tell({forget: path}),
        stop: () => new Promise(resolve => {
            child.once('exit', resolve);
            child.kill();
        }),
    };
}

/** A GPUDevice that computes nothing. Each write goes to `onWrite(buffer, offset, bytes)`. */
export function fakeDevice({onWrite = () => {}, limits = {}} = {}) {
    globalThis.GPUBufferUsage ??= {STORAGE: 128, UNIFORM: 64, COPY_SRC: 4, COPY_DST: 8, MAP_READ: 1, QUERY_RESOLVE: 512};
    globalThis.GPUShaderStage ??= {COMPUTE: 4};
    globalThis.GPUMapMode ??= {READ: 1};
    let lose;
    const pass = {setPipeline() {}, setBindGroup() {}, dispatchWorkgroups() {}, end() {}};
    const encoder = {beginComputePass: () => pass, copyBufferToBuffer() {}, resolveQuerySet() {}, finish: () => ({})};
    const device = Object.assign(new EventTarget(), {
        buffers: [],
        features: new Set(), adapterInfo: {vendor: 'nobody', architecture: '', description: 'a fake'},
        limits: {
            maxBufferSize: 2 ** 40, maxStorageBufferBindingSize: 2 ** 40, maxStorageBuffersPerShaderStage: 16,
            maxComputeWorkgroupsPerDimension: 65535, maxComputeInvocationsPerWorkgroup: 256,
            maxComputeWorkgroupStorageSize: 32768, minStorageBufferOffsetAlignment: 256,
            minUniformBufferOffsetAlignment: 256, ...limits,
        },
        lost: new Promise(resolve => void (lose = resolve)),
        lose: message => lose({reason: 'unknown', message}),
        queue: {
            submit() {},
            onSubmittedWorkDone: async () => {},
            writeBuffer: (buffer, offset, data, at, n) => onWrite(buffer, offset, new Uint8Array(data, at, n)),
        },
        createBuffer: ({size, usage}) => {
            const buffer = {
                size, usage, mapState: 'unmapped', destroyed: false, destroy() { this.destroyed = true; },
                mapAsync: async () => {}, getMappedRange: () => new ArrayBuffer(size), unmap() {},
            };
            device.buffers.push(buffer);
            return buffer;
        },
        createBindGroupLayout: () => ({}), createPipelineLayout: () => ({}), createShaderModule: () => ({}),
        createComputePipelineAsync: async () => ({}), createBindGroup: () => ({}), createCommandEncoder: () => encoder,
        createQuerySet: () => ({destroy() {}}), pushErrorScope() {}, popErrorScope: async () => null, destroy() {},
    });
    return device;
}
