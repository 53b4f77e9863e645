/* Speed on this device: chains of MatMulNBits layers through dibit's engine, and if the user wants so through
 * onnxruntime-web in the same page, one after the other in each round; and the loaded model. */
import {Engine} from 'dibit/engine';
import type {Session} from 'dibit/engine';

import {chainModel} from './chain.js';
import type {Chain} from './chain.js';
import {drawBars} from './chart.js';
import type {Bar} from './chart.js';
import {addRow, clearRows, element, show, whileRunning} from './dom.js';
import {currentModel} from './model.js';
import {showProblem} from './problems.js';

type Device = 'webgpu' | 'wasm';

/** Something that is timed: seconds for one run. */
interface Runner {
    run(rows: number): Promise<number>;
    dispose(): void;
}

const ROUNDS = 5, LAYERS = 4;
const cases: {name: string; rows: number; bits: number}[] = [
    {name: '2 bits, 1 row', rows: 1, bits: 2}, {name: '2 bits, 16 rows', rows: 16, bits: 2},
    {name: '4 bits, 1 row', rows: 1, bits: 4}, {name: '4 bits, 16 rows', rows: 16, bits: 4},
];

function input(rows: number, size: number): Float32Array {
    return Float32Array.from({length: rows * size}, (_, i) => Math.sin(i));
}

async function time(work: () => Promise<unknown>): Promise<number> {
    const start = performance.now();
    await work();
    return (performance.now() - start) / 1000;
}

class Ours implements Runner {
    private constructor(private readonly engine: Engine, private readonly session: Session, private readonly size: number) {}

    static async create(chain: Chain, device: Device): Promise<Ours> {
        const engine = await Engine.create({device});
        const session = await (await engine.loadModel(chainModel(chain))).createSession();
        return new Ours(engine, session, chain.size);
    }

    run(rows: number): Promise<number> {
        const x = {type: 'float', dims: [rows, this.size], data: input(rows, this.size)} as const;
        return time(() => this.session.run({inputs: {x}}));
    }

    dispose(): void {
        this.engine.dispose();
    }
}

/* As much of onnxruntime-web as is used here. */
interface Peer {
    env: {wasm: {numThreads: number; wasmPaths: string}};
    Tensor: new (type: string, data: Float32Array, dims: number[]) => unknown;
    InferenceSession: {create(model: Uint8Array, options: object): Promise<{
        run(feeds: object): Promise<Record<string, {getData?(): Promise<unknown>}>>;
        release(): Promise<void>;
    }>};
}

async function loadPeer(device: Device): Promise<Peer> {
    const folder = new URL('peer/', location.href).href;
    const peer = await import(`${folder}${device === 'webgpu' ? 'ort.webgpu.min.mjs' : 'ort.min.mjs'}`) as Peer;
    peer.env.wasm.wasmPaths = folder;
    peer.env.wasm.numThreads = 1;
    return peer;
}

async function createPeer(chain: Chain, device: Device): Promise<Runner> {
    const peer = await loadPeer(device);
    const session = await peer.InferenceSession.create(chainModel(chain), {executionProviders: [device]});
    return {
        run: rows => {
            const x = new peer.Tensor('float32', input(rows, chain.size), [rows, chain.size]);
            return time(async () => (await session.run({x})).y.getData?.());
        },
        dispose: () => void session.release(),
    };
}

function median(values: number[]): number {
    const sorted = [...values].sort((a, b) => a - b);
    return sorted[sorted.length >> 1];
}

/** Medians of rounds in which the runners take turns; a run before them is not counted. */
async function compare(runners: Runner[], rows: number, signal: AbortSignal): Promise<number[]> {
    const times = runners.map(() => [] as number[]);
    for (const r of runners) await r.run(rows);
    for (let round = 0; round < ROUNDS; round++) {
        for (const [i, r] of runners.entries()) {
            signal.throwIfAborted();
            times[i].push(await r.run(rows));
        }
    }
    return times.map(median);
}

function say(text: string, failed = false): void {
    const line = element('bench-result');
    line.textContent = text;
    line.classList.toggle('failed', failed);
}

const microseconds = (s: number) => `${Math.round((s / LAYERS) * 1e6).toLocaleString('en')} µs`;

async function benchOps(device: Device, size: number, withPeer: boolean, bars: Bar[], signal: AbortSignal): Promise<void> {
    const table = element<HTMLTableElement>('bench-table');
    for (const {name, rows, bits} of cases) {
        signal.throwIfAborted();
        say(`${name} …`);
        const chain = {size, layers: LAYERS, bits, block: 32, accuracyLevel: 4}, runners: Runner[] = [];
        try {
            runners.push(await Ours.create(chain, device));
            if (withPeer) runners.push(await createPeer(chain, device));
            const [ours, peer] = await compare(runners, rows, signal);
            const label = `${name}, a layer`;
            addRow(table, [label, microseconds(ours), peer ? microseconds(peer) : '', peer ? `${(peer / ours).toFixed(1)}×` : '']);
            bars.push({label, values: [
                {value: 1 / ours, text: microseconds(ours), className: 'ours'},
                ...(peer ? [{value: 1 / peer, text: microseconds(peer), className: 'peer' as const}] : []),
            ]});
            drawBars(element('bench-chart'), bars, 'Speed of each case; longer is faster');
        } finally {
            for (const r of runners) r.dispose();
        }
    }
}

async function benchModel(signal: AbortSignal): Promise<void> {
    const loaded = currentModel();
    if (!loaded) return;
    say(`${loaded.name} …`);
    const generation = loaded.lm.complete('The sky is blue because', {maxTokens: 65, temperature: 0, signal});
    await generation.text();
    const {info} = generation;
    if (!info) return;
    addRow(element('bench-table'), [`${loaded.name}, decode`, `${info.tokensPerSecond.toFixed(1)} tokens/s`, '', '']);
    addRow(element('bench-table'), [`${loaded.name}, first token`, `${info.firstTokenMs.toFixed(0)} ms`, '', '']);
}

async function run(signal: AbortSignal): Promise<void> {
    const device = element<HTMLSelectElement>('bench-device').value as Device;
    const size = Number(element<HTMLSelectElement>('bench-size').value);
    const withPeer = element<HTMLInputElement>('bench-peer').checked, bars: Bar[] = [];
    clearRows(element('bench-table'));
    element('bench-chart').replaceChildren();
    try {
        await benchOps(device, size, withPeer, bars, signal);
        await benchModel(signal);
        say(`Medians of ${ROUNDS} rounds, ${LAYERS} layers of ${size} × ${size} a run, block 32, zero points, one thread.`);
    } catch (error) {
        if (signal.aborted) {
            say('Stopped.');
            return;
        }
        say(`It failed: ${(error as Error).message}`, true);
        showProblem(error);
    }
}

export function setUpBenchmark(): void {
    const button = element<HTMLButtonElement>('bench'), stop = element<HTMLButtonElement>('bench-stop');
    if (!('gpu' in navigator)) element<HTMLSelectElement>('bench-device').value = 'wasm';
    show(false, stop);
    button.addEventListener('click', () => void whileRunning(button, stop, run));
}
