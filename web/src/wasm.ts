/* The engine's binary: loads it, gives its memory as views, its structs by field name, its statuses as
 * errors, and waits where it answers PENDING. It knows nothing of what the functions do: their meaning
 * is in include/dibit/dibit.h and lm.h. */

export type Pointer = number;
type Exports = Record<string, (...args: (number | bigint)[]) => number | bigint>;

/** Statuses that are looked at here; dibit.h has all. */
export const OK = 0, PENDING = 1, CANCELLED = 2;
export const BAD_ARGUMENT = 10, BAD_STATE = 11, NOT_FOUND = 12, IO = 20, UNSUPPORTED = 22, OUT_OF_MEMORY = 30,
    DEVICE_LOST = 51;
const TELL_MS = 250;
/** dibit_activations, by the names that options have. */
export const ACTIVATIONS = {auto: 0, float: 1, int8: 2};

/** What the engine answers when something fails: one sentence, and the status' name as in dibit.h. */
export class DibitError extends Error {
    override readonly name = 'DibitError';
    constructor(readonly status: string, message: string) {
        super(message);
    }
}

/** Things under way outside of the engine (fetches, work of a GPU). Where the engine answers PENDING because
 * of them, whoever polls waits for the next to end; else its turn is over, and it goes on when the
 * page had one. */
export class Waiter {
    private underWay = 0;
    private blocked = false;
    private wake: (() => void)[] = [];

    track<T>(promise: Promise<T>): Promise<T> {
        this.underWay++;
        const done = () => {
            this.underWay--;
            this.wakeAll();
        };
        promise.then(done, done);
        return promise;
    }

    /** While it waits, what tracks it is not under way. */
    async without(promise: Promise<void>): Promise<void> {
        this.underWay--;
        this.wakeAll();
        await promise;
        this.underWay++;
    }

    wakeAll(): void {
        const all = this.wake;
        this.wake = [];
        for (const f of all) f();
    }

    /** The answer PENDING that is about to be given waits for something under way. */
    block(): void {
        this.blocked = true;
    }

    /** To be called right after PENDING. */
    wait(): Promise<void> {
        const {blocked} = this;
        this.blocked = false;
        if (!blocked || this.underWay === 0) return nextTask();
        return new Promise(resolve => this.wake.push(resolve));
    }
}

/* Not scheduler.yield: what goes on after it comes before messages, and so before being told to stop. */
function nextTask(): Promise<void> {
    const {setImmediate} = globalThis as {setImmediate?: (f: () => void) => void};
    if (setImmediate) return new Promise(resolve => setImmediate(resolve));
    return new Promise(resolve => {
        const channel = new MessageChannel();
        channel.port1.onmessage = () => {
            channel.port1.close();
            resolve();
        };
        channel.port2.postMessage(0);
    });
}

interface Field {
    offset: number;
    bytes: number;
    isFloat: boolean;
}

export type FieldValue = number | bigint | boolean;

/** What answers the binary's imports besides libc's. */
export interface Imports {
    dibit_gpu: WebAssembly.ModuleImports;
    dibit_source: WebAssembly.ModuleImports;
}

export class Wasm {
    readonly waiter = new Waiter();
    private exports!: Exports;
    private memory!: WebAssembly.Memory;
    private buffer!: ArrayBuffer;
    private bytesView!: Uint8Array;
    private dataView!: DataView;
    private readonly fields = new Map<string, Field>();
    private errorAt: Pointer = 0;

    private constructor() {}

    /** `imports` gets the instance before anything is called. */
    static async instantiate(module: WebAssembly.Module,
                             imports: (wasm: Wasm) => Imports): Promise<Wasm> {
        const wasm = new Wasm();
        const instance = await WebAssembly.instantiate(module, {
            ...imports(wasm), wasi_snapshot_preview1: wasm.wasi(),
        } as unknown as WebAssembly.Imports);
        wasm.exports = instance.exports as unknown as Exports;
        wasm.memory = instance.exports.memory as WebAssembly.Memory;
        (instance.exports._initialize as () => void)();
        wasm.readLayouts();
        wasm.errorAt = wasm.alloc(wasm.size('dibit_error'));
        return wasm;
    }

    /** What libc imports of WASI: a clock, and files that are not there. */
    private wasi(): WebAssembly.ModuleImports {
        const badf = 8;
        return {
            clock_time_get: (_id: number, _precision: bigint, to: Pointer) => {
                this.view.setBigUint64(to, BigInt(Math.round(performance.now() * 1e6)), true);
                return 0;
            },
            fd_close: () => badf,
            fd_seek: () => badf,
            fd_write: () => badf,
            proc_exit: (code: number) => {
                throw new Error(`the engine ended with ${code}`);
            },
        };
    }

    private readLayouts(): void {
        const n = this.alloc(4);
        const table = this.call('dibit_web_layout', n), count = this.view.getUint32(n, true);
        for (let i = 0; i < count; i++) {
            const at = table + 16 * i, view = this.view;
            this.fields.set(this.string(view.getUint32(at, true)), {
                offset: view.getUint32(at + 4, true),
                bytes: view.getUint32(at + 8, true),
                isFloat: view.getUint32(at + 12, true) !== 0,
            });
        }
        this.free(n);
    }

    // ---- Memory -------------------------------------------------------------------------------

    private refresh(): void {
        if (this.buffer === this.memory.buffer) return;
        this.buffer = this.memory.buffer as ArrayBuffer;
        this.bytesView = new Uint8Array(this.buffer);
        this.dataView = new DataView(this.buffer);
    }

    /** All memory. Stale after any call of the engine: ask again. */
    get bytes(): Uint8Array<ArrayBuffer> {
        this.refresh();
        return this.bytesView as Uint8Array<ArrayBuffer>;
    }

    get view(): DataView {
        this.refresh();
        return this.dataView;
    }

    get memoryBytes(): number {
        return this.memory.buffer.byteLength;
    }

    alloc(bytes: number): Pointer {
        const at = this.call('malloc', bytes || 1);
        if (at === 0) throw new DibitError('OUT_OF_MEMORY', `out of memory: ${bytes} bytes`);
        return at;
    }

    free(at: Pointer): void {
        this.call('free', at);
    }

    /** A NUL-terminated string; '' for NULL. */
    string(at: Pointer): string {
        if (at === 0) return '';
        const bytes = this.bytes;
        return decode(bytes, at, bytes.indexOf(0, at));
    }

    /** So many bytes of text. */
    text(at: Pointer, bytes: number): string {
        return decode(this.bytes, at >>> 0, (at >>> 0) + bytes);
    }

    /** Text that ends with a NUL inside so many bytes. */
    writeString(at: Pointer, bytes: number, text: string): void {
        const to = this.bytes, {written} = encoder.encodeInto(text, to.subarray(at, at + bytes - 1));
        to[at + written] = 0;
    }

    // ---- Structs ------------------------------------------------------------------------------

    private field(name: string): Field {
        const field = this.fields.get(name);
        if (!field) throw new Error(`the engine's binary has no '${name}': it is of another version`);
        return field;
    }

    size(struct: string): number {
        return this.field(struct).bytes;
    }

    offset(field: string): number {
        return this.field(field).offset;
    }

    get(struct: string, at: Pointer, name: string): number {
        const {offset, bytes, isFloat} = this.field(`${struct}.${name}`), view = this.view;
        at += offset;
        if (isFloat) return bytes === 4 ? view.getFloat32(at, true) : view.getFloat64(at, true);
        switch (bytes) {
        case 1: return view.getUint8(at);
        case 4: return view.getUint32(at, true);
        case 8: return Number(view.getBigInt64(at, true));
        default: throw new Error(`${struct}.${name} is no number`);
        }
    }

    set(struct: string, at: Pointer, name: string, value: FieldValue): void {
        const {offset, bytes, isFloat} = this.field(`${struct}.${name}`), view = this.view;
        at += offset;
        if (isFloat) {
            if (bytes === 4) view.setFloat32(at, Number(value), true);
            else view.setFloat64(at, Number(value), true);
            return;
        }
        switch (bytes) {
        case 1: view.setUint8(at, Number(value)); break;
        case 4: view.setInt32(at, Number(value), true); break;
        case 8: view.setBigInt64(at, BigInt(value), true); break;
        default: throw new Error(`${struct}.${name} is no number`);
        }
    }

    // ---- Calls --------------------------------------------------------------------------------

    /** Any exported function. A missing last argument that is the error is the caller's to give. */
    call(name: string, ...args: (number | bigint)[]): number {
        const answer = this.exports[name](...args);
        return typeof answer === 'bigint' ? Number(answer) : answer >>> 0; /* an address, a status, a count */
    }

    /** A function that takes a dibit_error last and returns a status; OK and PENDING come back. */
    try(name: string, ...args: (number | bigint)[]): number {
        const status = this.call(name, ...args, this.errorAt);
        if (status !== OK && status !== PENDING) throw this.error(status);
        return status;
    }

    error(status: number): DibitError {
        const text = this.string(this.errorAt + this.offset('dibit_error.text'));
        return new DibitError(this.string(this.call('dibit_status_name', status)), text);
    }

    /** The number of a status by its name; BAD_STATE's when there is none. */
    statusOf(name: string): number {
        for (let status = 0; status < 64; status++) {
            if (this.string(this.call('dibit_status_name', status)) === name) return status;
        }
        return BAD_STATE;
    }

    /** Fills in a dibit_error from outside, and returns its status. */
    fail(at: Pointer, status: number, text: string): number {
        at >>>= 0;
        this.set('dibit_error', at, 'status', status);
        const {offset, bytes} = this.field('dibit_error.text');
        this.writeString(at + offset, bytes, text.replace(/\s+/g, ' '));
        return status;
    }

    /** Calls until the answer is not PENDING, and tells now and then; stops at once when the signal says so, or when
     * `try` or `tell` throws. */
    async finish({signal, tell}: {signal?: AbortSignal; tell?: () => void}, name: string,
                 ...args: (number | bigint)[]): Promise<void> {
        const wake = () => this.waiter.wakeAll();
        signal?.addEventListener('abort', wake);
        try {
            for (let told = performance.now();;) {
                signal?.throwIfAborted();
                if (this.try(name, ...args) === OK) return;
                await this.waiter.wait();
                if (tell && performance.now() - told > TELL_MS) {
                    tell();
                    told = performance.now();
                }
            }
        } finally {
            signal?.removeEventListener('abort', wake);
        }
    }
}

const encoder = new TextEncoder(), decoder = new TextDecoder();

function decode(bytes: Uint8Array, begin: number, end: number): string {
    return decoder.decode(bytes.subarray(begin, end));
}

/** Memory of one call: all of it is freed together. */
export class Scope {
    private readonly all: Pointer[] = [];

    constructor(readonly wasm: Wasm) {}

    alloc(bytes: number): Pointer {
        const at = this.wasm.alloc(bytes);
        this.all.push(at);
        return at;
    }

    /** Zeros. */
    zeros(bytes: number): Pointer {
        const at = this.alloc(bytes);
        this.wasm.bytes.fill(0, at, at + bytes);
        return at;
    }

    string(text: string): Pointer {
        const bytes = encoder.encode(text), at = this.alloc(bytes.length + 1);
        this.wasm.bytes.set(bytes, at);
        this.wasm.bytes[at + bytes.length] = 0;
        return at;
    }

    data(bytes: Uint8Array): Pointer {
        const at = this.alloc(bytes.length);
        this.wasm.bytes.set(bytes, at);
        return at;
    }

    /** A struct with these fields, and zeros in the others. */
    struct(name: string, fields: Record<string, FieldValue> = {}): Pointer {
        const at = this.zeros(this.wasm.size(name));
        for (const [field, value] of Object.entries(fields)) this.wasm.set(name, at, field, value);
        return at;
    }

    [Symbol.dispose](): void {
        for (const at of this.all.splice(0)) this.wasm.free(at);
    }
}
