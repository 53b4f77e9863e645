/* The engine's binary: which of the two, and where it comes from. */
import {DibitError} from './wasm.js';
import {isNode} from './input.js';

/** A URL, the bytes, or a module. */
export type WasmSource = string | URL | ArrayBuffer | ArrayBufferView | WebAssembly.Module;

/* (module (func (export "f") (result i32)
 *     (i32x4.extract_lane 0 (i32x4.relaxed_dot_i8x16_i7x16_add_s
 *         (i8x16.splat (i32.const -128)) (i8x16.splat (i32.const 3)) (i32x4.splat (i32.const 7)))))) */
const RELAXED_PROBE = Uint8Array.from([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, /* "\0asm", version 1 */
    1, 5, 1, 0x60, 0, 1, 0x7f, /* types: () -> i32 */
    3, 2, 1, 0, /* functions: of type 0 */
    7, 5, 1, 1, 0x66, 0, 0, /* exports: f */
    10, 23, 1, 21, 0, /* code: a body without locals */
    0x41, 0x80, 0x7f, 0xfd, 0x0f, /* i32.const -128, i8x16.splat */
    0x41, 3, 0xfd, 0x0f, 0x41, 7, 0xfd, 0x11, /* ... i32x4.splat */
    0xfd, 0x93, 2, /* i32x4.relaxed_dot_i8x16_i7x16_add_s */
    0xfd, 0x1b, 0, /* i32x4.extract_lane 0 */
    11, /* end */
]);

/** Relaxed SIMD is there, and computes right: Node 20 has it behind a flag, and its baseline compiler does not. */
export function hasRelaxedSimd(): boolean {
    if (!WebAssembly.validate(RELAXED_PROBE)) return false;
    const {f} = new WebAssembly.Instance(new WebAssembly.Module(RELAXED_PROBE)).exports as {f(): number};
    return f() === 4 * -128 * 3 + 7;
}

export async function loadBinary(source: WasmSource | undefined): Promise<WebAssembly.Module> {
    if (source instanceof WebAssembly.Module) return source;
    if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return compile(source as BufferSource);
    return fetchModule(source ?? (hasRelaxedSimd() ? new URL('./dibit-relaxed.wasm', import.meta.url)
                                                   : new URL('./dibit.wasm', import.meta.url)));
}

async function compile(bytes: BufferSource): Promise<WebAssembly.Module> {
    try {
        return await WebAssembly.compile(bytes);
    } catch (e) {
        throw new DibitError('UNSUPPORTED', `this browser cannot run the engine's binary: ${(e as Error).message}`);
    }
}

async function fetchModule(url: string | URL): Promise<WebAssembly.Module> {
    const href = String(url);
    if (isNode && !/^(https?|data|blob):/i.test(href)) {
        const name = 'node:fs/promises';
        const {readFile} = await import(/* @vite-ignore */ /* webpackIgnore: true */ name) as
            {readFile(path: string | URL): Promise<Uint8Array>};
        try {
            return await compile(await readFile(/^file:/i.test(href) ? new URL(href) : href) as BufferSource);
        } catch (e) {
            if (e instanceof DibitError) throw e;
            throw new DibitError('IO', `cannot read the engine's binary: ${(e as Error).message}`);
        }
    }
    let response: Response;
    try {
        response = await fetch(href);
    } catch (e) {
        throw new DibitError('IO', `cannot load the engine's binary ${href}: ${(e as Error).message}`);
    }
    if (!response.ok) {
        throw new DibitError('IO', `cannot load the engine's binary: the server answers ${response.status} for ${href}`);
    }
    /* Compiling while it comes needs the right MIME type, which some servers do not send. */
    const mime = response.headers.get('content-type')?.split(';')[0].trim();
    if (mime === 'application/wasm') {
        try {
            return await WebAssembly.compileStreaming(response);
        } catch (e) {
            throw new DibitError('UNSUPPORTED', `this browser cannot run the engine's binary: ${(e as Error).message}`);
        }
    }
    return compile(await response.arrayBuffer());
}
