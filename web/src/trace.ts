/* `dibit trace` where the package runs: what one element of a MatMulNBits is made of, bit by bit. */
import {checkCount, describe, finite, makeInputs, withModel} from './debug.js';
import {Scope, Wasm} from './wasm.js';

import type {DebugModel, ModelOptions, Place} from './debug.js';
import type {Engine, Session} from './engine.js';
import type {Pointer} from './wasm.js';

export interface TraceOptions extends ModelOptions {
    /** The element of the node's output: its index on each axis, as `diff` gives it, or row and column. */
    index: readonly number[];
    /** A MatMulNBits of the model; default: its only one. */
    node?: string;
    /** A kernel that `verify` names; default: the one that is chosen. */
    kernel?: string;
    /** Products behind the first wrong one too. */
    all?: boolean;
    onProgress?: (progress: {stage: 'model' | 'trace'; done: number; total: number}) => void;
}

/** What one product is made of; null: there is none, or the shader did not write it down. */
export interface TraceProduct {
    /** The code: `mask` of the bits from `shift` on of the little-endian word at byte `address` of the weights. */
    address: number | null;
    word: number;
    /** The word behind it, where the code ends there; else 0. */
    nextWord: number;
    shift: number;
    mask: number;
    code: number;
    /** Of the scale. */
    block: number;
    /** Byte of the zero points, and where in it a packed one begins. */
    zeroAddress: number | null;
    zeroShift: number;
    zeroPoint: number | null;
    scaleAddress: number | null;
    scale: number | null;
    aIndex: number | null;
    a: number | null;
    /** With int8 activations: a is aCode * aScale. */
    aCode: number;
    aScale: number | null;
    product: number | null;
    /** Of the products up to here, and the bias. */
    sum: number | null;
}

export interface TraceReport extends Place {
    kind: 'trace';
    node: string;
    /** '' on the CPU, where only the definition is shown. */
    kernel: string;
    bits: number;
    blockSize: number;
    M: number;
    N: number;
    K: number;
    /** Row and column of the element. */
    row: number;
    column: number;
    int8Activations: boolean;
    /** The sum as the definition has it; what the output must be after a fused residual or gate, how far it may be
     * off, and what it is. */
    sum: number | null;
    expected: number | null;
    allowed: number | null;
    got: number | null;
    wrong: boolean;
    /** The first product that is not as defined; -1: none, then the output itself is wrong if `wrong`. */
    firstWrong: number;
    /** The first that is wrong, in one sentence; ''. */
    text: string;
    /** As defined, and as the shader itself has it; up to the first wrong one, unless all were asked for. */
    products: {k: number; expected: TraceProduct; got: TraceProduct}[];
}

/** Lists the products that one element of a MatMulNBits's output is the sum of, as defined and as the shader of this
 * GPU loads and unpacks them, and names the first bit that is wrong. */
export async function trace(model: DebugModel, options: TraceOptions): Promise<TraceReport> {
    const began = performance.now(), {onProgress, signal} = options;
    const tell = (stage: 'model' | 'trace', done: number, total: number) => onProgress?.({stage, done, total});
    return withModel(model, options, (done, total) => tell('model', done, total), async (engine, loaded) => {
        const session = await loaded.createSession({
            signal, activations: options.activations, keepValues: true, noFusion: options.noFusion,
            noProof: !!options.noProof,
        });
        tell('trace', 1, 3);
        const tokens = checkCount('tokens', options.tokens ?? 5, 4096);
        const inputs = options.input ?? makeInputs(engine.core.wasm, session.pointer, tokens, options.seed ?? 1);
        await session.run({inputs, signal});
        tell('trace', 2, 3);
        return engine.core.loads.run(() => traceElement(engine, session, options, began));
    });
}

async function traceElement(engine: Engine, session: Session, options: TraceOptions,
                            began: number): Promise<TraceReport> {
    const {wasm, sources} = engine.core, {index} = options;
    using scope = new Scope(wasm);
    const text = (name: string | undefined) => name === undefined ? 0 : scope.string(name);
    const at = scope.data(new Uint8Array(BigInt64Array.from(index, BigInt).buffer)), handle = scope.zeros(4);
    try {
        const desc = scope.struct('dibit_trace_desc', {
            node: text(options.node), index: at, n_index: index.length, kernel: text(options.kernel),
        });
        wasm.try('dibit_trace_begin', session.pointer, desc, handle);
        const trace = wasm.view.getUint32(handle, true);
        await wasm.finish({signal: options.signal}, 'dibit_trace_poll', trace);
        return {kind: 'trace', ...readTrace(wasm, trace, !!options.all), ...describe(engine, began)};
    } finally {
        wasm.call('dibit_trace_destroy', handle);
        sources.rest();
    }
}

function readTrace(wasm: Wasm, trace: Pointer, all: boolean): Omit<TraceReport, keyof Place | 'kind'> {
    using scope = new Scope(wasm);
    const info = scope.struct('dibit_trace_info');
    const expected = scope.struct('dibit_trace_product'), got = scope.struct('dibit_trace_product');
    wasm.call('dibit_trace_get_info', trace, info);
    const get = (field: string) => wasm.get('dibit_trace_info', info, field), K = get('K');
    const firstWrong = get('first_wrong'), shown = all || firstWrong < 0 ? K : firstWrong + 1;
    return {
        node: wasm.string(get('node')), kernel: wasm.string(get('kernel')), bits: get('bits'),
        blockSize: get('block_size'), M: get('M'), N: get('N'), K, row: get('m'), column: get('n'),
        int8Activations: get('int8_activations') !== 0, sum: finite(get('sum')), expected: finite(get('expected')),
        allowed: finite(get('allowed')), got: finite(get('got')), wrong: get('wrong') !== 0, firstWrong,
        text: wasm.string(get('text')),
        products: Array.from({length: shown}, (_, k) => {
            wasm.call('dibit_trace_get_product', trace, BigInt(k), expected, got);
            return {k, expected: readProduct(wasm, expected), got: readProduct(wasm, got)};
        }),
    };
}

function readProduct(wasm: Wasm, at: Pointer): TraceProduct {
    const get = (field: string) => wasm.get('dibit_trace_product', at, field);
    const place = (field: string) => get(field) < 0 ? null : get(field); /* none is all ones */
    const number = (field: string) => finite(get(field));
    return {
        address: place('address'), word: get('word'), nextWord: get('next_word'), shift: get('shift'),
        mask: get('mask'), code: get('code'), block: get('block'), zeroAddress: place('zero_address'),
        zeroShift: get('zero_shift'), zeroPoint: number('zero_point'), scaleAddress: place('scale_address'),
        scale: number('scale'), aIndex: place('a_index'), a: number('a'), aCode: get('a_code') | 0,
        aScale: number('a_scale'), product: number('product'), sum: number('sum'),
    };
}
