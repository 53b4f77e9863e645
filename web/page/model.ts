/* The model of this page: loading it, and saying what runs it. One at a time. */
import {load} from 'dibit';
import type {Explanation, LanguageModel} from 'dibit';

import {addRow, chosen, clearRows, element, make, megabytes, say, show, whileRunning} from './dom.js';
import {choice, showKept} from './picker.js';
import type {Choice} from './picker.js';
import {clearProblem, isStop, showProblem} from './problems.js';

export interface Loaded extends Choice {
    lm: LanguageModel;
    device: 'auto' | 'webgpu' | 'wasm';
}

type Listener = (loaded: Loaded | undefined) => void;

let loaded: Loaded | undefined;
const listeners: Listener[] = [];

export function currentModel(): Loaded | undefined {
    return loaded;
}

/** Calls it now, and whenever there is another model. */
export function onModel(listener: Listener): void {
    listeners.push(listener);
    listener(loaded);
}

function change(to: Loaded | undefined): void {
    loaded = to;
    show(!to, element('picker'));
    for (const listener of listeners) listener(to);
}

// ---- What runs where -------------------------------------------------------------------------

function rows({device, why, adapter, features, binary, steps, cpuSteps, memory}: Explanation): [string, string][] {
    return [
        ['Device', device], ['Why', why],
        ['Adapter', adapter ? [adapter.vendor, adapter.architecture, adapter.description].filter(Boolean).join(', ') : ''],
        ['Features', features?.join(', ') ?? ''], ['Engine', binary],
        ['Steps', cpuSteps && cpuSteps < steps ? `${steps}, ${cpuSteps} of them on the CPU` : String(steps)],
        ['Weights', megabytes(memory.weights)],
        ['Values', `${megabytes(memory.workspace)}, plan ${megabytes(memory.plan)}, packed weights ${megabytes(memory.packed)}`],
        ['Engine\'s memory', megabytes(memory.wasm)],
    ].filter((row): row is [string, string] => row[1] !== '');
}

async function explain(): Promise<void> {
    if (!loaded) return;
    const dialog = element<HTMLDialogElement>('explain'), table = dialog.querySelector('table')!;
    const explanation = await loaded.lm.explain();
    dialog.querySelector('dl')!.replaceChildren(
        ...rows(explanation).flatMap(([k, v]) => [make('dt', k), make('dd', v)]));
    clearRows(table);
    for (const {op, steps, kernel, device, why} of explanation.kernels) {
        addRow(table, [String(steps), op, [`${device} ${kernel}`, why].filter(Boolean).join(': ')]);
    }
    dialog.showModal();
}

/** All of it, for the report. */
export async function explainInText(): Promise<string> {
    if (!loaded) return 'no model is loaded';
    const explanation = await loaded.lm.explain(), {type, contextLength} = loaded.lm.model;
    return [
        `${loaded.name}${typeof loaded.from === 'string' ? ` (${loaded.from})` : ''}: ${type || 'model'}, context ${contextLength}`,
        ...rows(explanation).map(([k, v]) => `${k}: ${v}`),
        ...explanation.kernels.map(k => `${String(k.steps).padStart(5)} ${k.op.padEnd(28)} ${k.device} ${k.kernel}${k.why && `: ${k.why}`}`),
    ].join('\n');
}

/** In a few words, in the page's head and below the conversation. */
export async function showDevice(): Promise<void> {
    const pill = element<HTMLButtonElement>('device');
    pill.disabled = !loaded;
    if (!loaded) {
        pill.textContent = 'no model';
        pill.className = 'pill';
        return;
    }
    const {device, why, memory, adapter, binary} = await loaded.lm.explain();
    const onGpu = !device.startsWith('cpu'), bytes = memory.wasm + (onGpu ? memory.weights + memory.workspace : 0);
    pill.textContent = `${onGpu ? 'GPU' : 'CPU'} · ${megabytes(bytes)}`;
    pill.className = `pill ${onGpu ? 'gpu' : 'cpu'}`;
    const what = onGpu ? [adapter?.vendor, adapter?.architecture].filter(Boolean).join(' ') || 'WebGPU' : `WebAssembly, ${binary}`;
    element('running').textContent = `${loaded.name} on ${what}${why && loaded.device === 'auto' && !onGpu ? `: ${why}` : ''}`;
}

// ---- Loading -----------------------------------------------------------------------------------

const stages = {tokenizer: 'Tokenizer', model: 'Model', prepare: 'Model', ready: 'Ready'};

function showProgress(text: string, share: number): void {
    const bar = element('progress');
    show(true, bar);
    bar.setAttribute('aria-valuenow', String(Math.round(100 * share)));
    bar.setAttribute('aria-valuetext', text);
    bar.querySelector('div')!.style.width = `${100 * share}%`;
    bar.querySelector('span')!.textContent = text;
}

async function loadChosen(signal: AbortSignal): Promise<void> {
    const what = choice(), device = chosen<Loaded['device']>('choose-device');
    showProgress('Beginning', 0);
    const lm = await load(what.from, {
        device, signal,
        onProgress: ({stage, loaded: bytes, total}) => {
            if (total === 0) showProgress(stages[stage], 0);
            else if (bytes < total) showProgress(`${megabytes(bytes)} of ${megabytes(total)}`, bytes / total);
            else showProgress('Getting the device ready', 1);
        },
    });
    if (!lm.model.generates) {
        await lm.dispose();
        throw new Error('This model makes vectors of texts: it does not chat.');
    }
    loaded = {lm, device, ...what};
    await showDevice();
    change(loaded);
}

async function submit(event: Event): Promise<void> {
    event.preventDefault();
    const button = element<HTMLButtonElement>('load');
    if (button.hidden) return;
    clearProblem();
    try {
        await whileRunning(button, element<HTMLButtonElement>('load-stop'), loadChosen);
        say('status', 'The model is loaded.');
    } catch (error) {
        if (!isStop(error)) showProblem(error);
    } finally {
        show(false, element('progress'));
        await showKept();
    }
}

/** Back to choosing. */
export async function unload(): Promise<void> {
    const old = loaded;
    change(undefined);
    await showDevice();
    await old?.lm.dispose();
}

export function setUpModel(): void {
    element('picker').addEventListener('submit', event => void submit(event));
    element('device').addEventListener('click', () => void explain().catch(showProblem));
    element('other').addEventListener('click', () => void unload().catch(showProblem));
}
