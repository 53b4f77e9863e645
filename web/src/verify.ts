/* `dibit/verify`, the entry point: from "it prints garbage on my GPU" to the bit, where the package runs. This file has
 * `dibit verify`, which proves on this very device that weights are read rightly. */
import {describe} from './debug.js';
import {Engine} from './engine.js';
import {ACTIVATIONS, DibitError, OK, Pointer, Scope, Wasm} from './wasm.js';

import type {DeviceOptions, Place} from './debug.js';

export {diff} from './diff.js';
export {trace} from './trace.js';
export {formatReport} from './report.js';
export type {DebugModel, DeviceOptions, ModelOptions, Place} from './debug.js';
export type {DiffFirst, DiffMeasure, DiffNode, DiffOptions, DiffPass, DiffProgress, DiffReport} from './diff.js';
export type {TraceOptions, TraceProduct, TraceReport} from './trace.js';

export interface VerifyOptions extends DeviceOptions {
    /** quick: only 2 to 4 bits and the commonest form of weights. full: everything on software adapters too. */
    scope?: 'normal' | 'quick' | 'full';
    /** Only kernels of this kind. */
    activations?: 'auto' | 'float' | 'int8';
    /** Called now and then, with what has come out so far. */
    onProgress?: (kernels: KernelReport[]) => void;
}

export interface KernelReport {
    kernel: string;
    verdict: 'passed' | 'failed' | 'skipped';
    cases: number;
    failedCases: number;
    /** Codes of weights that were read back. */
    codes: number;
    /** The first wrong code, or why it was skipped. */
    text: string;
}

export interface VerifyReport extends Place {
    kind: 'verify';
    codes: number;
    passed: number;
    failed: number;
    skipped: number;
    kernels: KernelReport[];
}

const VERDICTS = ['passed', 'failed', 'skipped'] as const;
const SCOPES = {normal: 0, quick: 1, full: 2};

/** Reads every code of weights back through each kernel of a device. Everything is done when it has resolved,
 * whether kernels are right or not: look at `failed`. */
export async function verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    const {scope = 'normal', activations = 'auto', signal} = options;
    const began = performance.now(), engine = await Engine.create(options);
    try {
        const kernels = await run(engine, SCOPES[scope], ACTIVATIONS[activations], options.onProgress, signal);
        const count = (verdict: string) => kernels.filter(k => k.verdict === verdict).length;
        return {
            kind: 'verify', ...describe(engine, began),
            codes: kernels.reduce((n, k) => n + k.codes, 0), passed: count('passed'), failed: count('failed'),
            skipped: count('skipped'), kernels,
        };
    } finally {
        engine.dispose();
    }
}

async function run(engine: Engine, scope: number, activations: number, onProgress: VerifyOptions['onProgress'],
                   signal: AbortSignal | undefined): Promise<KernelReport[]> {
    const {wasm, device} = engine.core;
    using memory = new Scope(wasm);
    const handle = memory.zeros(4);
    wasm.try('dibit_verify_begin', device, memory.struct('dibit_verify_desc', {scope, activations}), handle);
    const verification = wasm.view.getUint32(handle, true), info = memory.struct('dibit_verify_info');
    try {
        const tell = () => onProgress!(readKernels(wasm, verification, info));
        await wasm.finish({signal, tell: onProgress && tell}, 'dibit_verify_poll', verification);
        return readKernels(wasm, verification, info);
    } finally {
        wasm.call('dibit_verify_destroy', handle);
    }
}

function readKernels(wasm: Wasm, verification: Pointer, info: Pointer): KernelReport[] {
    const kernels: KernelReport[] = [];
    const get = (field: string) => wasm.get('dibit_verify_info', info, field);
    while (wasm.call('dibit_verify_kernel', verification, kernels.length, info) === OK) {
        const verdict = VERDICTS[get('verdict')];
        if (!verdict) throw new DibitError('BAD_STATE', `there is no verdict ${get('verdict')}`);
        kernels.push({
            kernel: wasm.string(get('kernel')), verdict, cases: get('cases'), failedCases: get('failed_cases'),
            codes: get('codes'), text: wasm.string(get('text')),
        });
    }
    return kernels;
}
