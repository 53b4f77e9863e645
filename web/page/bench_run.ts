/* What is timed, in a job's worker: the same program on dibit/ort and, if the user wants so, on onnxruntime-web.
 * They take turns, so that what else the machine does meets both. */
import * as dibit from 'dibit/ort';

import {chain} from '../../bench/web/chain.mjs';
import {loadPeer} from './ort_api.js';
import type {Device, External, Feeds, Ort, OrtSession, OrtTensor} from './ort_api.js';

export const ROUNDS = 5, LAYERS = 4, PROMPT = 64, DECODED = 24;
const SECONDS = 6; /* of rounds of a case: slow ones end earlier */

/** What one of them took: seconds, or why it did not run. */
export type Took = {seconds: number} | {failure: string};

export interface Measured {
    name: string;
    /** Tokens or layers in a run. */
    units: number;
    kind: 'layer' | 'token';
    /** Cases of one group do the same work: their times compare. */
    group: string;
    took: Took[];
}

export interface BenchOptions {
    device: Device;
    /** N and K of the layers. */
    size: number;
    /** Where onnxruntime-web is; null: not wanted. */
    peer: string | null;
    model: BenchModel | null;
}

/** The loaded model: its files, and what its config.json says; 0: nothing. */
export interface BenchModel {
    name: string;
    url: string;
    external: External[];
    layers: number;
    headDim: number;
}

/** A thing that can be run again and again. */
interface Runner {
    run(): Promise<void>;
    dispose(): Promise<void>;
}

function median(values: number[]): number {
    return [...values].sort((a, b) => a - b)[values.length >> 1];
}

/** Medians of rounds, after a run that does not count. One that fails leaves the others alone. */
async function compare(begin: (() => Promise<Runner>)[]): Promise<Took[]> {
    const runners: (Runner | null)[] = [], times: number[][] = begin.map(() => []), failures: string[] = [];
    const attempt = async (i: number, work: () => Promise<void>) => {
        try {
            await work();
        } catch (e) {
            failures[i] = (e as Error).message ?? String(e);
        }
    };
    for (const [i, f] of begin.entries()) {
        await attempt(i, async () => {
            runners[i] = await f();
            await runners[i]!.run();
        });
    }
    const until = performance.now() + 1000 * SECONDS * begin.length;
    for (let round = 0; round < ROUNDS && (round === 0 || performance.now() < until); round++) {
        for (const [i, runner] of runners.entries()) {
            if (failures[i] !== undefined) continue;
            const start = performance.now();
            await attempt(i, () => runner!.run());
            times[i].push((performance.now() - start) / 1000);
        }
    }
    for (const runner of runners) await runner?.dispose().catch(() => {});
    return begin.map((_, i) => failures[i] === undefined ? {seconds: median(times[i])} : {failure: failures[i]});
}

// ---- A chain of layers -----------------------------------------------------------------------

async function layers(ort: Ort, {device, size}: BenchOptions, rows: number, bits: number): Promise<Runner> {
    const bytes = chain({size, layers: LAYERS, bits, accuracy: 4});
    const session = await ort.InferenceSession.create(bytes, {executionProviders: [device]});
    const x = Float32Array.from({length: rows * size}, (_, i) => Math.sin(i));
    return {
        async run() {
            const {y} = await session.run({x: new ort.Tensor('float32', x, [rows, size])});
            await y.getData();
            y.dispose();
        },
        dispose: () => session.release(),
    };
}

// ---- A model ------------------------------------------------------------------------------------

/* One sequence through a decoder with a cache, as transformers.js feeds it. Which tokens they are does not matter. */
class Sequence {
    private past: Feeds = {};
    private length = 0;

    constructor(private readonly ort: Ort, private readonly session: OrtSession, private readonly headDim: number) {}

    private int64(values: number[]): OrtTensor {
        return new this.ort.Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length]);
    }

    private emptyPast(name: string): OrtTensor {
        const {type, shape = []} = this.session.inputMetadata.find(i => i.name === name)!;
        const width = Number(shape[3]) || this.headDim;
        const data = type === 'float16' ? new Uint16Array(0) : new Float32Array(0);
        return new this.ort.Tensor(type ?? 'float32', data, [1, Number(shape[1]), 0, width]);
    }

    async feed(ids: number[]): Promise<void> {
        const total = this.length + ids.length, feeds: Feeds = {};
        for (const name of this.session.inputNames) {
            if (name === 'input_ids') feeds[name] = this.int64(ids);
            else if (name === 'attention_mask') feeds[name] = this.int64(Array(total).fill(1));
            else if (name === 'position_ids') feeds[name] = this.int64(ids.map((_, i) => this.length + i));
            else if (name.startsWith('past_key_values.')) feeds[name] = this.past[name] ?? this.emptyPast(name);
            else throw new Error(`the benchmark does not know the model's input '${name}'`);
        }
        const outputs = await this.session.run(feeds);
        await outputs.logits.getData();
        this.end();
        for (const [name, tensor] of Object.entries(outputs)) {
            if (name.startsWith('present.')) this.past[name.replace('present.', 'past_key_values.')] = tensor;
            else tensor.dispose();
        }
        this.length = total;
    }

    end(): void {
        for (const tensor of Object.values(this.past)) tensor.dispose();
        this.past = {};
    }
}

/* `reads` a prompt, or writes after a short one. */
async function model(ort: Ort, {device, model}: BenchOptions, reads: boolean): Promise<Runner> {
    const {url, external, layers, headDim} = model!, onGpu: Record<string, 'gpu-buffer'> = {};
    for (let i = 0; i < layers; i++) onGpu[`present.${i}.key`] = onGpu[`present.${i}.value`] = 'gpu-buffer';
    const session = await ort.InferenceSession.create(url, {
        executionProviders: [device], externalData: external, ...(device === 'webgpu' && {preferredOutputLocation: onGpu}),
    });
    const ids = Array.from({length: PROMPT}, (_, i) => 5 + (i * 37) % 97);
    return {
        async run() {
            const sequence = new Sequence(ort, session, headDim);
            if (reads) await sequence.feed(ids);
            else for (let i = 0; i < DECODED; i++) await sequence.feed([ids[i]]);
            sequence.end();
        },
        dispose: () => session.release(),
    };
}

// ------------------------------------------------------------------------------------------------

/** Tells each case when it is begun, with nothing in `took`, and when it is measured. */
export async function benchmark(options: BenchOptions, tell: (measured: Measured) => void): Promise<void> {
    const {peer, device} = options, orts = [dibit as unknown as Ort];
    if (peer) orts.push(await loadPeer(peer, device));
    const measure = async (what: Omit<Measured, 'took'>, begin: (ort: Ort) => Promise<Runner>) => {
        tell({...what, took: []});
        tell({...what, took: await compare(orts.map(ort => () => begin(ort)))});
    };
    for (const rows of [1, 16]) {
        for (const bits of [2, 4]) {
            const name = `${bits} bits, ${rows} row${rows > 1 ? 's' : ''}`;
            await measure({name, units: LAYERS, kind: 'layer', group: `${rows}`}, ort => layers(ort, options, rows, bits));
        }
    }
    if (!options.model) return;
    const {name} = options.model;
    await measure({name: `${name}, reading`, units: PROMPT, kind: 'token', group: 'reading'}, ort => model(ort, options, true));
    await measure({name: `${name}, writing`, units: DECODED, kind: 'token', group: 'writing'}, ort => model(ort, options, false));
}
