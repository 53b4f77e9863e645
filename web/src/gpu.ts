/* The page's side of src/gpu/hal_web.c: answers the imports of "dibit_gpu" on GPUDevices. The engine has
 * checked every command against the device's limits; what the GPU finds out later is kept as a fault,
 * for the engine to ask (page_status). Objects are numbers, never 0. */
import {BAD_ARGUMENT, DEVICE_LOST, OK, OUT_OF_MEMORY, PENDING, Pointer, UNSUPPORTED, Wasm}
    from './wasm.js';
import type {Sources} from './source.js';
import {TIME_DISPATCHES, Timer} from './gpu_timer.js';
import {Readback} from './gpu_read.js';

/* DBT_HAL_* of src/gpu/hal.h */
const F16 = 1 << 0, SUBGROUPS = 1 << 1, DOT4 = 1 << 2, TIMESTAMPS = 1 << 3, SOFTWARE = 1 << 4;
const BINDING_UNIT = 16; /* DBT_HAL_BINDING_UNIT: sizes of buffers and bindings */
const INFO_NAME_BYTES = 204; /* dbt_web_device_info */
const BINDING_BYTES = 32; /* web_binding */

/** Writes that the queue has not done yet, at most: it keeps copies of them. */
const STAGED_BYTES = 32 << 20;
/** What goes to the queue in one write. */
const PART_BYTES = 1 << 20;
/** Buffers from here on are checked for the memory they need by themselves. */
const SCOPED_BYTES = 1 << 20;

/** A GPUDevice and what is known about it. */
export interface OpenedDevice {
    device: GPUDevice;
    adapter: {vendor: string; architecture: string; description: string; isFallbackAdapter: boolean};
    /** The adapter computes on the CPU. */
    isSoftware: boolean;
    /** Shaders may use dot4I8Packed and the like. */
    hasDot4: boolean;
    /** It was requested here, and is destroyed with the engine. */
    isOwn: boolean;
}

function isSoftware(info: GPUAdapterInfo): boolean {
    const text = `${info.vendor} ${info.architecture} ${info.device} ${info.description}`;
    return !!info.isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|software|microsoft basic render/i.test(text);
}

/* Asked of the device itself, since one that the caller has does not say which GPU object knows its language. */
async function knowsDot4(device: GPUDevice): Promise<boolean> {
    device.pushErrorScope('validation');
    device.createShaderModule({label: 'dot4', code: 'requires packed_4x8_integer_dot_product;'});
    const fault = await device.popErrorScope().catch(() => 'the device is lost');
    return fault === null;
}

async function opened(device: GPUDevice, info: GPUAdapterInfo | undefined, isOwn: boolean):
    Promise<OpenedDevice> {
    return {
        device, isOwn, hasDot4: await knowsDot4(device),
        adapter: {
            vendor: info?.vendor ?? '', architecture: info?.architecture ?? '',
            description: info?.description ?? '', isFallbackAdapter: !!info?.isFallbackAdapter,
        },
        isSoftware: !!info && isSoftware(info),
    };
}

/** A device that the caller has. Its uncaptured errors are taken for the engine's. */
export function wrapDevice(device: GPUDevice): Promise<OpenedDevice> {
    return opened(device, device.adapterInfo, false);
}

function pageGpu(): GPU | undefined {
    return (globalThis as {navigator?: {gpu?: GPU}}).navigator?.gpu;
}

/** Where WebGPU is: the browser's or Deno's navigator.gpu; in Node the npm package `webgpu`, if it is
 * installed. A sentence when there is none. */
async function findGpu(): Promise<GPU | string> {
    const gpu = pageGpu();
    if (gpu) return gpu;
    const isNode = (globalThis as {process?: {release?: {name?: string}}}).process?.release?.name === 'node';
    if (!isNode) {
        return globalThis.isSecureContext === false
            ? 'WebGPU is there on pages from https or localhost alone'
            : 'this browser has no WebGPU';
    }
    return nodeGpu ??= openNodeGpu();
}

/* Kept for good: Dawn's instance has to outlive its devices. */
let nodeGpu: Promise<GPU | string> | undefined;

async function openNodeGpu(): Promise<GPU | string> {
    const name = 'webgpu'; /* a variable, so that bundlers leave it alone */
    let dawn: {create(options: string[]): GPU; globals: object};
    try {
        dawn = await import(/* @vite-ignore */ /* webpackIgnore: true */ name) as typeof dawn;
    } catch {
        return 'Node has no WebGPU: the npm package webgpu is not installed';
    }
    Object.assign(globalThis, dawn.globals);
    return dawn.create([]);
}

const FEATURES: GPUFeatureName[] = ['shader-f16', 'subgroups', 'timestamp-query'];

/** Requests the adapter, and a device with all that the engine can use. A sentence when there is none. */
export async function requestDevice(): Promise<OpenedDevice | string> {
    const gpu = await findGpu();
    if (typeof gpu === 'string') return gpu;
    const adapter = await gpu.requestAdapter({powerPreference: 'high-performance'}) ??
        await gpu.requestAdapter();
    if (!adapter) return 'WebGPU finds no adapter';
    const has = adapter.limits;
    const requiredLimits: Record<string, number> = {};
    for (const limit of [
        'maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage',
        'maxComputeWorkgroupsPerDimension', 'maxComputeInvocationsPerWorkgroup',
        'maxComputeWorkgroupSizeX', 'maxComputeWorkgroupSizeY', 'maxComputeWorkgroupSizeZ',
        'maxComputeWorkgroupStorageSize', 'minStorageBufferOffsetAlignment',
        'minUniformBufferOffsetAlignment',
    ] as const) {
        requiredLimits[limit] = has[limit];
    }
    const requiredFeatures = FEATURES.filter(name => adapter.features.has(name));
    try {
        const device = await adapter.requestDevice({requiredLimits, requiredFeatures, label: 'dibit'});
        return await opened(device, adapter.info, true);
    } catch (e) {
        return `the adapter gives no device: ${(e as Error).message}`;
    }
}

interface Pipeline {
    name: string;
    layout: GPUBindGroupLayout;
    /** null: it is being compiled, or `problem` says why it cannot be. */
    pipeline: GPUComputePipeline | null;
    problem: string;
}

/** A command that waits for those before it, and for its pipeline. */
interface Deferred {
    pipeline?: Pipeline;
    run(): void;
}

const isCompiling = (pipeline: Pipeline | undefined) => !!pipeline && !pipeline.pipeline && !pipeline.problem;

type Object = GPUBuffer | Pipeline | GPUBindGroup;

function isBuffer(object: Object): object is GPUBuffer {
    return 'mapState' in object;
}

/** One device of the engine's. Pipelines are compiled beside the page's other work: commands that need one which is
 * not there yet are kept, with all that follow them, and run in their order when it is. */
class Page {
    private readonly device: GPUDevice;
    private readonly queue: GPUQueue;
    private readonly objects: (Object | null)[] = [null];
    private readonly freeNumbers: number[] = [];
    private encoder: GPUCommandEncoder | null = null;
    private pass: GPUComputePassEncoder | null = null;
    private setPipeline: Pipeline | null = null;
    private setGroup: GPUBindGroup | null = null;
    private readonly setOffset = new Uint32Array(1);
    private readonly noOffset = new Uint32Array(0);
    private deferred: Deferred[] = [];
    /* Released while recorded commands may use them. */
    private dying: GPUBuffer[] = [];
    private fault: {status: number; text: string} | null = null;
    private submitted = 0;
    private finished = 0;
    private watched = 0;
    private closed = false;
    private readonly reads: Readback;
    private readonly timer: Timer;
    /* A write from a source that waits for bytes. */
    private partial = {buffer: 0, offset: 0, source: 0, from: 0, bytes: 0, done: 0};
    private part: Uint8Array<ArrayBuffer> | null = null;
    private staged = 0;
    private stagedBefore = false;

    constructor(private readonly wasm: Wasm, readonly opened: OpenedDevice,
                private readonly sources: Sources) {
        const {device} = opened;
        this.device = device;
        this.queue = device.queue;
        const fail = (e: unknown) => this.fail(BAD_ARGUMENT, (e as Error).message);
        this.reads = new Readback(device, wasm, fail);
        this.timer = new Timer(device, wasm, fail);
        device.addEventListener('uncapturederror', this.onError);
        void device.lost.then(info => {
            this.fail(DEVICE_LOST, info.message || `the device was ${info.reason}`);
            this.deferred.length = 0;
            this.wasm.waiter.wakeAll();
        });
    }

    private readonly onError = (event: GPUUncapturedErrorEvent) => {
        event.preventDefault(); /* it becomes a status: nothing for the console */
        this.keep(event.error);
    };

    private keep(error: GPUError, name?: string): void {
        const isMemory = error instanceof GPUOutOfMemoryError;
        const status = isMemory ? OUT_OF_MEMORY : name ? UNSUPPORTED : BAD_ARGUMENT;
        const text = error.message || (isMemory ? 'the GPU has no memory for it' : 'no reason is given');
        this.fail(status, name ? `${name}: ${text}` : text);
    }

    private fail(status: number, text: string): void {
        if (this.closed || this.fault?.status === DEVICE_LOST) return;
        if (!this.fault || status === DEVICE_LOST) this.fault = {status, text};
    }

    /** What has gone wrong since the last call; a loss stays. */
    status(error: Pointer): number {
        const {fault} = this;
        if (!fault) return OK;
        if (fault.status !== DEVICE_LOST) this.fault = null;
        return this.wasm.fail(error, fault.status, fault.text);
    }

    /* ---- Device ---- */

    writeInfo(to: Pointer): void {
        const {device} = this, {limits} = device, {view} = this.wasm;
        const has = (name: GPUFeatureName) => device.features.has(name);
        const info = device.adapterInfo as GPUAdapterInfo | undefined;
        const features = (has('shader-f16') ? F16 : 0) | (has('subgroups') ? SUBGROUPS : 0) |
            (this.opened.hasDot4 ? DOT4 : 0) | (has('timestamp-query') ? TIMESTAMPS : 0) |
            (this.opened.isSoftware ? SOFTWARE : 0);
        const whole = (bytes: number) => BigInt(Math.floor(bytes / BINDING_UNIT)) * BigInt(BINDING_UNIT);
        view.setBigUint64(to, whole(limits.maxBufferSize), true);
        view.setBigUint64(to + 8, whole(limits.maxStorageBufferBindingSize), true);
        const subgroups = has('subgroups');
        const words = [
            features, limits.maxStorageBuffersPerShaderStage, limits.maxComputeWorkgroupsPerDimension,
            limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupStorageSize,
            limits.minStorageBufferOffsetAlignment, limits.minUniformBufferOffsetAlignment,
            subgroups ? info?.subgroupMinSize || 4 : 0, subgroups ? info?.subgroupMaxSize || 128 : 0,
        ];
        words.forEach((word, i) => view.setUint32(to + 16 + 4 * i, word, true));
        this.wasm.writeString(to + 52, INFO_NAME_BYTES, deviceName(this.opened));
    }

    close(): void {
        this.closed = true;
        this.deferred.length = 0;
        this.device.removeEventListener('uncapturederror', this.onError);
        this.reads.close();
        this.timer.close();
        for (const object of this.objects) {
            if (object && isBuffer(object)) object.destroy();
        }
        this.objects.length = 0;
        if (this.opened.isOwn) this.device.destroy();
    }

    /* ---- Objects ---- */

    private add(object: Object): number {
        const number = this.freeNumbers.pop() ?? this.objects.length;
        this.objects[number] = object;
        return number;
    }

    buffer(bytes: bigint): number {
        const scoped = bytes >= SCOPED_BYTES, {device} = this;
        if (scoped) device.pushErrorScope('out-of-memory');
        const buffer = device.createBuffer({
            size: Number(bytes),
            usage: GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_SRC |
                GPUBufferUsage.COPY_DST,
        });
        if (scoped) this.popScope(`a buffer of ${bytes} bytes`);
        return this.add(buffer);
    }

    private popScope(name: string): void {
        this.device.popErrorScope().then(error => error && this.keep(error, name), () => {});
    }

    pipeline(name: string, code: string, bindings: number, written: number,
             uniformBytes: number): number {
        const {device} = this;
        const entries: GPUBindGroupLayoutEntry[] = [];
        const visibility = GPUShaderStage.COMPUTE;
        if (uniformBytes) {
            entries.push({binding: 0, visibility, buffer: {
                type: 'uniform', hasDynamicOffset: true, minBindingSize: uniformBytes,
            }});
        }
        for (let i = 0; bindings >>> i; i++) {
            if (!(bindings >>> i & 1)) continue;
            entries.push({binding: i + 1, visibility, buffer: {
                type: written >>> i & 1 ? 'storage' : 'read-only-storage', minBindingSize: BINDING_UNIT,
            }});
        }
        device.pushErrorScope('validation');
        const layout = device.createBindGroupLayout({entries});
        const made: Pipeline = {name, layout, pipeline: null, problem: ''};
        const compiled = device.createComputePipelineAsync({
            label: name,
            layout: device.createPipelineLayout({bindGroupLayouts: [layout]}),
            compute: {module: device.createShaderModule({label: name, code}), entryPoint: 'main'},
        });
        const wrong = device.popErrorScope().catch(() => null); /* says more than that it is no pipeline */
        void this.wasm.waiter.track(compiled.then(pipeline => void (made.pipeline = pipeline), async (e: unknown) => {
            made.problem = (await wrong)?.message || (e as Error).message || 'it does not compile';
        }).then(() => this.catchUp()));
        return this.add(made);
    }

    group(pipeline: number, at: Pointer, n: number): number {
        const {view} = this.wasm, entries: GPUBindGroupEntry[] = [];
        for (let i = 0; i < n; i++, at += BINDING_BYTES) {
            entries.push({
                binding: view.getUint32(at + 16, true),
                resource: {
                    offset: Number(view.getBigUint64(at, true)),
                    size: Number(view.getBigUint64(at + 8, true)),
                    buffer: this.objects[view.getUint32(at + 20, true)] as GPUBuffer,
                },
            });
        }
        const {layout} = this.objects[pipeline] as Pipeline;
        return this.add(this.device.createBindGroup({layout, entries}));
    }

    release(number: number): void {
        const object = this.objects[number];
        if (!object) return;
        if (isBuffer(object)) {
            if (number === this.partial.buffer) this.partial.buffer = 0;
            this.order(() => {
                if (this.encoder) this.dying.push(object);
                else object.destroy();
            });
        }
        this.objects[number] = null;
        this.freeNumbers.push(number);
    }

    /* ---- Commands ---- */

    private waits(pipeline?: Pipeline): boolean {
        return this.deferred.length > 0 || isCompiling(pipeline);
    }

    private order(run: () => void, pipeline?: Pipeline): void {
        if (this.waits(pipeline)) this.deferred.push({run, pipeline});
        else run();
    }

    /** Runs what waited for a pipeline, up to the next that is not there. */
    private catchUp(): void {
        let n = 0;
        while (n < this.deferred.length && !isCompiling(this.deferred[n].pipeline)) this.deferred[n++].run();
        this.deferred.splice(0, n);
    }

    private encode(): GPUCommandEncoder {
        if (this.pass) {
            this.pass.end();
            this.pass = null;
        }
        return this.encoder ??= this.device.createCommandEncoder();
    }

    private beginPass(): GPUComputePassEncoder {
        const encoder = this.encode();
        this.setPipeline = this.setGroup = null;
        return this.pass = encoder.beginComputePass(this.timer.next(encoder));
    }

    dispatch(number: number, groupNumber: number, offset: number, x: number, y: number, z: number,
             mayFail: boolean): void {
        const pipeline = this.objects[number] as Pipeline, group = this.objects[groupNumber] as GPUBindGroup;
        if (this.waits(pipeline)) {
            this.order(() => this.dispatchNow(pipeline, group, offset, x, y, z, mayFail), pipeline);
        } else {
            this.dispatchNow(pipeline, group, offset, x, y, z, mayFail);
        }
    }

    private dispatchNow(pipeline: Pipeline, group: GPUBindGroup, offset: number, x: number, y: number, z: number,
                        mayFail: boolean): void {
        if (!pipeline.pipeline) {
            if (!mayFail) this.fail(UNSUPPORTED, `${pipeline.name}: ${pipeline.problem}`);
            return;
        }
        const pass = this.pass && this.timer.mode !== TIME_DISPATCHES ? this.pass : this.beginPass();
        if (this.setPipeline !== pipeline) {
            pass.setPipeline(pipeline.pipeline);
            this.setPipeline = pipeline;
        }
        const at = offset < 0 ? 0 : offset;
        if (this.setGroup !== group || this.setOffset[0] !== at) {
            this.setOffset[0] = at;
            this.setGroup = group;
            pass.setBindGroup(0, group, offset < 0 ? this.noOffset : this.setOffset, 0, offset < 0 ? 0 : 1);
        }
        pass.dispatchWorkgroups(x, y, z);
    }

    copy(from: number, fromOffset: bigint, to: number, toOffset: bigint, bytes: bigint): void {
        const source = this.objects[from] as GPUBuffer, target = this.objects[to] as GPUBuffer;
        this.order(() => this.encode().copyBufferToBuffer(source, Number(fromOffset), target, Number(toOffset),
                                                          Number(bytes)));
    }

    submit(): void {
        this.order(() => this.submitNow());
    }

    private submitNow(): void {
        if (this.encoder) {
            this.queue.submit([this.encode().finish()]);
            this.encoder = null;
            this.submitted++;
            this.timer.afterSubmit();
        }
        for (const buffer of this.dying) buffer.destroy();
        this.dying.length = 0;
    }

    write(buffer: number, offset: bigint, from: Pointer, bytes: number): void {
        const to = this.objects[buffer] as GPUBuffer, memory = this.wasm.bytes, at = Number(offset);
        if (this.waits()) {
            const copy = memory.slice(from, from + bytes);
            this.order(() => this.queue.writeBuffer(to, at, copy));
        } else {
            this.queue.writeBuffer(to, at, memory.buffer, from, bytes);
        }
        this.submitted++;
    }

    /** Straight from the source's bytes to the queue, as far as they are here. */
    writeSource(buffer: number, offset: number, source: number, from: number, bytes: number,
                error: Pointer): number {
        const p = this.partial;
        if (p.buffer !== buffer || p.offset !== offset || p.source !== source || p.from !== from ||
            p.bytes !== bytes) {
            this.partial = {buffer, offset, source, from, bytes, done: 0};
        }
        const now = this.partial, to = this.objects[buffer] as GPUBuffer;
        const part = this.part ??= new Uint8Array(PART_BYTES);
        while (now.done < bytes) {
            if (this.waits()) {
                this.wasm.waiter.block();
                return PENDING;
            }
            if (!this.mayStage()) return PENDING;
            const n = Math.min(PART_BYTES, bytes - now.done);
            const status = this.sources.copy(source, from + now.done, bytes - now.done, part.subarray(0, n),
                                             error);
            if (status !== OK) {
                if (status !== PENDING) now.buffer = 0;
                return status;
            }
            const padded = n + 3 & ~3;
            part.fill(0, n, padded);
            this.queue.writeBuffer(to, offset + now.done, part.buffer, 0, padded);
            now.done += n;
            this.staged += n;
            this.submitted++;
        }
        now.buffer = 0;
        return OK;
    }

    /** False while too many bytes wait in the queue. */
    private mayStage(): boolean {
        if (this.staged < STAGED_BYTES / 2) return true;
        if (this.stagedBefore) {
            this.wasm.waiter.block();
            return false;
        }
        this.staged = 0;
        this.stagedBefore = true;
        this.queue.submit([]);
        const done = () => void (this.stagedBefore = false);
        void this.wasm.waiter.track(this.queue.onSubmittedWorkDone().then(done, done));
        return true;
    }

    /* ---- Answers ---- */

    read(buffer: number, offset: bigint, dst: Pointer, bytes: number): number {
        if (!bytes) {
            this.submit();
            return this.reads.nothing();
        }
        const from = this.objects[buffer] as GPUBuffer;
        const {ticket, begin} = this.reads.start(dst, bytes, (staging, whole) => {
            this.encode().copyBufferToBuffer(from, Number(offset), staging, 0, whole);
            this.submitNow();
        });
        this.order(begin);
        return ticket;
    }

    done(ticket: number): boolean {
        if (ticket === 0 ? this.isIdle() : this.reads.isDone(ticket)) return true;
        this.wasm.waiter.block();
        return false;
    }

    private isIdle(): boolean {
        if (this.waits()) return false;
        const {submitted} = this;
        if (this.watched < submitted) {
            this.watched = submitted;
            const done = () => void (this.finished = Math.max(this.finished, submitted));
            void this.wasm.waiter.track(this.queue.onSubmittedWorkDone().then(done, done));
        }
        return this.finished >= submitted && this.timer.isIdle;
    }

    cancel(ticket: number): void {
        this.reads.cancel(ticket);
    }

    /** How passes are timed from now on; what was timed is read. */
    time(mode: number): void {
        this.order(() => {
            if (this.timer.hasTimes) {
                this.timer.resolve(this.encode());
                this.submitNow();
            }
            this.timer.mode = mode;
        });
    }

    timings(to: Pointer, n: number): number {
        const taken = this.timer.take(n), {view} = this.wasm;
        taken.forEach((ns, i) => view.setBigUint64(to + 8 * i, ns, true));
        return taken.length;
    }
}

/** For people: "NVIDIA H100 (nvidia, hopper)". */
export function deviceName({adapter: a}: OpenedDevice): string {
    const kind = [a.vendor, a.architecture].filter(Boolean).join(' ');
    return a.description ? kind ? `${a.description} (${kind})` : a.description : kind || 'WebGPU';
}

/** All devices of an engine, by their numbers: what the binary imports. */
export class Gpus {
    private readonly pages: (Page | undefined)[] = [];
    private readonly offered: OpenedDevice[] = [];

    constructor(private readonly wasm: Wasm, private readonly sources: Sources) {}

    /** The number for dibit_device_desc.webgpu_device. */
    offer(device: OpenedDevice): number {
        return this.offered.push(device) - 1;
    }

    imports(): WebAssembly.ModuleImports {
        const {pages, wasm} = this;
        const page = (device: number) => pages[device]!;
        return {
            open: (device: number, at: Pointer) => {
                const opened = this.offered[device];
                if (!opened || pages[device]) return 0;
                const page = pages[device] = new Page(wasm, opened, this.sources);
                page.writeInfo(at >>> 0);
                return 1;
            },
            close: (device: number) => {
                pages[device]!.close();
                pages[device] = undefined;
            },
            status: (device: number, error: Pointer) => pages[device]!.status(error),
            buffer: (device: number, bytes: bigint) => page(device).buffer(bytes),
            pipeline: (device: number, name: Pointer, nameBytes: number, code: Pointer, codeBytes: number,
                       bindings: number, written: number, uniformBytes: number) =>
                page(device).pipeline(wasm.text(name, nameBytes), wasm.text(code, codeBytes), bindings, written,
                                      uniformBytes),
            group: (device: number, pipeline: number, bindings: Pointer, n: number) =>
                page(device).group(pipeline, bindings >>> 0, n),
            release: (device: number, object: number) => page(device).release(object),
            write: (device: number, buffer: number, offset: bigint, from: Pointer, bytes: number) =>
                page(device).write(buffer, offset, from >>> 0, bytes >>> 0),
            write_source: (device: number, buffer: number, offset: bigint, source: number, from: bigint,
                           bytes: bigint, error: Pointer) =>
                page(device).writeSource(buffer, Number(offset), source, Number(from), Number(bytes), error),
            copy: (device: number, from: number, fromOffset: bigint, to: number, toOffset: bigint,
                   bytes: bigint) => page(device).copy(from, fromOffset, to, toOffset, bytes),
            dispatch: (device: number, pipeline: number, group: number, offset: number, x: number, y: number,
                       z: number, mayFail: number) =>
                pages[device]!.dispatch(pipeline, group, offset, x, y, z, mayFail !== 0),
            submit: (device: number) => page(device).submit(),
            read: (device: number, buffer: number, offset: bigint, dst: Pointer, bytes: number) =>
                page(device).read(buffer, offset, dst >>> 0, bytes >>> 0),
            done: (device: number, ticket: number) => Number(page(device).done(ticket)),
            cancel: (device: number, ticket: number) => page(device).cancel(ticket),
            time: (device: number, mode: number) => page(device).time(mode),
            timings: (device: number, to: Pointer, n: number) => page(device).timings(to >>> 0, n),
        };
    }
}

