/* `dibit verify` where the package runs: proves on this very device that weights are read rightly, and gives a
 * report that can be pasted into an issue. */
import {Engine} from './engine.js';
import {DibitError, OK, Pointer, Scope, Wasm} from './wasm.js';

import type {DeviceChoice, EngineOptions} from './engine.js';

/* build.mjs sets it. */
declare const DIBIT_VERSION: string;

export interface VerifyOptions {
    device?: DeviceChoice;
    gpuDevice?: GPUDevice;
    wasm?: EngineOptions['wasm'];
    /** quick: only 2 to 4 bits and the commonest form of weights. full: everything on software adapters too. */
    scope?: 'normal' | 'quick' | 'full';
    /** Only kernels of this kind. */
    activations?: 'auto' | 'float' | 'int8';
    /** Called now and then, with what has come out so far. */
    onProgress?: (kernels: KernelReport[]) => void;
    signal?: AbortSignal;
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

export interface VerifyReport {
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
    codes: number;
    passed: number;
    failed: number;
    skipped: number;
    kernels: KernelReport[];
}

const VERDICTS = ['passed', 'failed', 'skipped'] as const;
const SCOPES = {normal: 0, quick: 1, full: 2}, ACTIVATIONS = {auto: 0, float: 1, int8: 2};

/** Reads every code of weights back through each kernel of a device. Everything is done when it has resolved,
 * whether kernels are right or not: look at `failed`. */
export async function verify(options: VerifyOptions = {}): Promise<VerifyReport> {
    const {scope = 'normal', activations = 'auto', signal} = options;
    const began = performance.now(), engine = await Engine.create(options);
    try {
        const kernels = await run(engine, SCOPES[scope], ACTIVATIONS[activations], options.onProgress, signal);
        const count = (verdict: string) => kernels.filter(k => k.verdict === verdict).length;
        return {
            ...describe(engine), seconds: (performance.now() - began) / 1000,
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
        for (let told = performance.now();;) {
            signal?.throwIfAborted();
            if (wasm.try('dibit_verify_poll', verification) === OK) return readKernels(wasm, verification, info);
            await wasm.waiter.wait();
            if (onProgress && performance.now() - told > 250) {
                onProgress(readKernels(wasm, verification, info));
                told = performance.now();
            }
        }
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

function describe(engine: Engine) {
    const {gpu} = engine, {navigator, process} = globalThis as {
        navigator?: {userAgent?: string}; process?: {version?: string; platform?: string; arch?: string};
    };
    const limits: Record<string, number> = {};
    if (gpu) for (const name in gpu.device.limits) limits[name] = gpu.device.limits[name as keyof GPUSupportedLimits] as number;
    return {
        version: DIBIT_VERSION, device: engine.deviceName, why: engine.why,
        runtime: process?.version ? `Node ${process.version}, ${process.platform} ${process.arch}`
            : navigator?.userAgent ?? 'unknown',
        binary: engine.relaxed ? 'relaxed SIMD' : 'SIMD',
        ...(gpu && {adapter: {...gpu.adapter}, features: [...gpu.device.features].sort(), limits}),
    };
}

/** The report as text, as `dibit verify` writes it, with what an issue needs besides. */
export function formatReport(report: VerifyReport): string {
    const lines = [`dibit ${report.version} verify on ${report.device}`];
    if (report.why) lines.push(report.why);
    lines.push(`runtime: ${report.runtime}; binary: ${report.binary}`);
    if (report.adapter) {
        const {vendor, architecture, description, isFallbackAdapter} = report.adapter;
        lines.push(`adapter: ${[vendor, architecture, description, isFallbackAdapter && 'fallback']
            .filter(Boolean).join(', ')}`);
    }
    if (report.features) lines.push(`features: ${report.features.join(' ')}`);
    if (report.limits) {
        lines.push(`limits: ${Object.entries(report.limits).map(([name, value]) => `${name} ${value}`).join(', ')}`);
    }
    for (const k of report.kernels) {
        const name = k.kernel.padEnd(38);
        lines.push(k.verdict === 'skipped' ? `skipped ${name} ${k.text}`
            : `${k.verdict.padEnd(7)} ${name} ${String(k.cases).padStart(4)} cases, ${
                String(k.codes).padStart(9)} codes`);
        if (k.verdict === 'failed') lines.push(`FAILED ${k.kernel}: ${k.failedCases} cases, first ${k.text}`);
    }
    lines.push(`${report.codes} codes read in ${report.seconds.toFixed(1)} s`);
    lines.push(`${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped`);
    return lines.join('\n');
}
