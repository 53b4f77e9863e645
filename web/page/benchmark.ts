/* The benchmark: what bench_run.ts measures, as bars and figures. */
import type {BenchModel, BenchOptions, Measured, Took} from './bench_run.js';
import {drawBars} from './chart.js';
import type {Bar} from './chart.js';
import {addRow, chosen, clearRows, element, say, show, whileRunning} from './dom.js';
import {runJob} from './jobs.js';
import {currentModel, onModel} from './model.js';
import type {Loaded} from './model.js';
import type {Device, External} from './ort_api.js';
import {inWords, isStop} from './problems.js';

const PEER = {version: '1.30.0', megabytes: {wasm: '3.7 MB (14 MB unpacked)', webgpu: '6.6 MB (27 MB unpacked)'}};
const HERE = new URL('peer/', location.href).href, CDN = `https://cdn.jsdelivr.net/npm/onnxruntime-web@${PEER.version}/dist/`;

const device = () => chosen<Device>('bench-device');
const wantsPeer = () => element<HTMLInputElement>('bench-peer').checked;

async function isThere(url: string): Promise<boolean> {
    const answer = await fetch(url, {method: 'HEAD'}).catch(() => undefined);
    return !!answer?.ok && !answer.headers.get('content-type')?.startsWith('text/html');
}

/* Beside the page, else at the CDN. */
async function findPeer(): Promise<string> {
    return await isThere(`${HERE}ort.wasm.min.mjs`) ? HERE : CDN;
}

/* Ticking the box is the consent: this says to what. */
async function tellWhatIsFetched(): Promise<void> {
    const hint = element('bench-consent');
    if (wantsPeer()) {
        const from = await findPeer();
        hint.textContent = `Run fetches onnxruntime-web ${PEER.version} from ${from === HERE ? 'beside this page' : new URL(from).host}: ${
            PEER.megabytes[device()]}. It runs in this page, with one thread as Dibit does.`;
    }
    show(wantsPeer(), hint);
}

// ---- The loaded model --------------------------------------------------------------------------

/* A file of the model's folder as a URL; undefined when there is none. */
async function find({from}: Loaded, name: string): Promise<string | undefined> {
    if (typeof from !== 'string') {
        const file = from.find(f => f.webkitRelativePath.endsWith(`/${name}`) || f.name === baseName(name));
        return file && URL.createObjectURL(file);
    }
    const url = new URL(name, from.endsWith('.onnx') ? from : from.replace(/\/?$/, '/')).href;
    return await isThere(url) ? url : undefined;
}

const baseName = (path: string) => path.slice(path.lastIndexOf('/') + 1);

/* With the files of its external data as exporters name them. */
async function filesOf(loaded: Loaded): Promise<BenchModel | null> {
    const {file} = loaded.lm.model, url = await find(loaded, file), config = await find(loaded, 'config.json');
    if (!url) return null;
    const external: External[] = [];
    for (const name of ['.data', '_data'].map(end => file + end)) {
        const data = await find(loaded, name);
        if (data) external.push({path: baseName(name), data});
    }
    const says: Record<string, number> = config ? await (await fetch(config)).json() : {};
    return {
        name: loaded.name, url, external, layers: says.num_hidden_layers ?? 0,
        headDim: says.head_dim ?? (says.hidden_size / says.num_attention_heads || 0),
    };
}

// ---- Showing -----------------------------------------------------------------------------------

const inUnits = ({units, kind}: Measured, seconds: number) => kind === 'token' ? `${(units / seconds).toFixed(1)} tokens/s`
    : `${Math.round((1e6 * seconds) / units).toLocaleString('en')} µs a layer`;

function addMeasured(measured: Measured, bars: Bar[]): void {
    const {name, took, group} = measured, classes = ['ours', 'peer'] as const;
    const words = (t: Took | undefined) => !t ? '' : 'failure' in t ? 'cannot' : inUnits(measured, t.seconds);
    const [ours, peer] = took, ratio = ours && peer && 'seconds' in ours && 'seconds' in peer
        ? `${(peer.seconds / ours.seconds).toFixed(1)}×` : '';
    addRow(element('bench-table'), [name, words(ours), words(peer), ratio]);
    const failures = took.flatMap(t => 'failure' in t ? [t.failure] : []);
    if (failures.length > 0) element<HTMLTableElement>('bench-table').tBodies[0].lastElementChild!.setAttribute('title', failures.join('\n'));
    const values = took.flatMap((t, i) => 'seconds' in t
        ? [{value: 1 / t.seconds, text: inUnits(measured, t.seconds), className: classes[i]}] : []);
    if (values.length > 0) bars.push({label: name, group, values});
    drawBars(element('bench-chart'), bars, `${bars.length} cases; longer is faster. The figures are in the table below.`);
}

async function options(): Promise<BenchOptions> {
    const loaded = currentModel();
    return {
        device: device(), size: Number(chosen('bench-size')), peer: wantsPeer() ? await findPeer() : null,
        model: loaded ? await filesOf(loaded) : null,
    };
}

async function run(signal: AbortSignal): Promise<void> {
    const bars: Bar[] = [], table = element<HTMLTableElement>('bench-table');
    clearRows(table);
    element('bench-chart').replaceChildren();
    say('bench-result', 'Getting ready …');
    try {
        const what = await options();
        show(what.peer !== null, element('bench-legend'));
        table.classList.toggle('alone', what.peer === null);
        await runJob<void, Measured>('benchmark', [what], {
            signal,
            onEvent: measured => {
                if (measured.took.length === 0) say('bench-result', `${measured.name} …`);
                else addMeasured(measured, bars);
            },
        });
        say('bench-result', `Medians of 5 rounds on one thread. Layers: 4 of ${what.size} × ${what.size} a run, block size 32, with zero points.${
            what.model ? ' The model reads 64 tokens at once, and writes 24 one by one.' : ''}`);
    } catch (error) {
        say('bench-result', isStop(error) ? 'Stopped.' : inWords(error), !isStop(error));
    }
}

export function setUpBenchmark(): void {
    const button = element<HTMLButtonElement>('bench'), stop = element<HTMLButtonElement>('bench-stop');
    if (!('gpu' in navigator)) element<HTMLSelectElement>('bench-device').value = 'wasm';
    for (const id of ['bench-peer', 'bench-device']) {
        element(id).addEventListener('change', () => void tellWhatIsFetched());
    }
    button.addEventListener('click', () => void whileRunning(button, stop, run));
    onModel(loaded => (element('bench-model').textContent = loaded ? `${loaded.name} is measured too.`
        : 'Load a model to measure it too.'));
}
