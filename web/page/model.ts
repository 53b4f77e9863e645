/* The model of this page: which one, loading it, what runs it. One at a time. */
import {load} from 'dibit';
import type {Explanation, LanguageModel} from 'dibit';

import {element, make, megabytes, show} from './dom.js';
import {clearProblem, showProblem} from './problems.js';

export interface Loaded {
    lm: LanguageModel;
    name: string;
    /** What load() was given: the model again, for tools. */
    from: string | File[];
}

type Listener = (loaded: Loaded | undefined) => void;

let loaded: Loaded | undefined, dropped: File[] | undefined;
const listeners: Listener[] = [];

export function currentModel(): Loaded | undefined {
    return loaded;
}

export function onModel(listener: Listener): void {
    listeners.push(listener);
}

function change(to: Loaded | undefined): void {
    loaded = to;
    show(!to, element('picker'));
    for (const listener of listeners) listener(to);
}

// ---- What runs where -------------------------------------------------------------------------

function describe(e: Explanation): [string, string][] {
    const {memory} = e, rows: [string, string][] = [['Device', e.device]];
    if (e.why) rows.push(['Why', e.why]);
    if (e.adapter) rows.push(['Adapter', [e.adapter.vendor, e.adapter.architecture, e.adapter.description].filter(s => s).join(', ')]);
    if (e.features?.length) rows.push(['Features', e.features.join(', ')]);
    rows.push(['Engine', e.binary], ['Steps', `${e.steps}, ${e.cpuSteps} of them on the CPU`],
              ['Weights', megabytes(memory.weights)], ['Values', megabytes(memory.workspace + memory.plan)],
              ['wasm memory', megabytes(memory.wasm)]);
    for (const k of e.kernels) {
        rows.push([`${k.steps} × ${k.op}`, [k.device, k.kernel, k.why].filter(s => s).join(': ')]);
    }
    return rows;
}

async function explain(): Promise<void> {
    if (!loaded) return;
    const dialog = element<HTMLDialogElement>('explain');
    const rows = describe(await loaded.lm.explain());
    dialog.querySelector('dl')!.replaceChildren(...rows.flatMap(([k, v]) => [make('dt', k), make('dd', v)]));
    dialog.showModal();
}

async function showDevice(): Promise<void> {
    const pill = element('device');
    if (!loaded) {
        pill.textContent = 'no model';
        return;
    }
    const {device, memory} = await loaded.lm.explain();
    pill.textContent = `${device} · ${megabytes(memory.weights + memory.workspace + memory.plan)}`;
}

// ---- Loading -----------------------------------------------------------------------------------

const stages = {tokenizer: 'Tokenizer', model: 'Model', prepare: 'Getting the device ready', ready: 'Ready'};

function showProgress(text: string, share: number): void {
    const bar = element('progress');
    show(true, bar);
    bar.setAttribute('aria-valuenow', String(Math.round(100 * share)));
    bar.querySelector('div')!.style.width = `${100 * share}%`;
    bar.querySelector('span')!.textContent = text;
}

function wanted(): {from: string | File[]; name: string} {
    const kind = new FormData(element<HTMLFormElement>('picker')).get('model');
    if (kind === 'url') {
        const from = element<HTMLInputElement>('url').value.trim();
        if (!from) throw new Error('Write the address of the model\'s folder.');
        return {from, name: new URL(from, location.href).pathname.replace(/\/$/, '').split('/').pop() || from};
    }
    if (kind === 'files') {
        const from = dropped ?? [...(element<HTMLInputElement>('folder').files ?? [])];
        if (from.length === 0) throw new Error('Choose the folder of a model.');
        return {from, name: from[0].webkitRelativePath.split('/')[0] || from[0].name};
    }
    return {from: new URL('models/smollm2-135m-instruct-2bit/', location.href).href, name: 'SmolLM2 135M Instruct'};
}

async function loadModel(event: Event): Promise<void> {
    event.preventDefault();
    clearProblem();
    const button = element<HTMLButtonElement>('load');
    if (button.textContent === 'Stop') return; /* the other listener stops */
    const abort = new AbortController(), stop = () => abort.abort();
    try {
        const {from, name} = wanted();
        const device = element<HTMLSelectElement>('choose-device').value as 'auto' | 'webgpu' | 'wasm';
        button.textContent = 'Stop';
        button.addEventListener('click', stop);
        showProgress('Beginning', 0);
        const lm = await load(from, {
            device, signal: abort.signal,
            onProgress: ({stage, loaded: bytes, total}) => showProgress(
                total > 0 && stage === 'model' ? `${stages[stage]}: ${megabytes(bytes)} of ${megabytes(total)}` : stages[stage],
                stage === 'model' && total > 0 ? bytes / total : stage === 'tokenizer' ? 0 : 1),
        });
        change({lm, name, from});
        await showDevice();
    } catch (error) {
        showProblem(error);
    } finally {
        button.removeEventListener('click', stop);
        button.textContent = 'Load the model';
        show(false, element('progress'));
    }
}

async function unload(): Promise<void> {
    const old = loaded;
    change(undefined);
    await showDevice();
    await old?.lm.dispose();
}

// ---- Choosing ----------------------------------------------------------------------------------

function choose(kind: string): void {
    element('picker').querySelector<HTMLInputElement>(`input[value=${kind}]`)!.checked = true;
    show(kind === 'url', element('url'));
    show(kind === 'files', element('folder'));
}

/* The files of what was dropped, folders walked through. */
async function filesOf(items: DataTransferItemList): Promise<File[]> {
    const files: File[] = [];
    const walk = async (entry: FileSystemEntry): Promise<void> => {
        if (entry.isFile) {
            files.push(await new Promise<File>((ok, no) => (entry as FileSystemFileEntry).file(ok, no)));
            return;
        }
        const reader = (entry as FileSystemDirectoryEntry).createReader();
        for (;;) {
            const some = await new Promise<FileSystemEntry[]>((ok, no) => reader.readEntries(ok, no));
            if (some.length === 0) return;
            for (const e of some) await walk(e);
        }
    };
    const entries = [...items].map(i => i.webkitGetAsEntry()).filter(e => e !== null);
    for (const e of entries) await walk(e);
    return files;
}

export function setUpModel(): void {
    const picker = element<HTMLFormElement>('picker');
    picker.addEventListener('submit', event => void loadModel(event));
    picker.addEventListener('change', event => {
        const input = event.target as HTMLInputElement;
        if (input.name === 'model') choose(input.value);
        if (input.id === 'folder') dropped = undefined;
    });
    element('device').addEventListener('click', () => void explain().catch(showProblem));
    element('other').addEventListener('click', () => void unload().catch(showProblem));
    document.addEventListener('dragover', event => {
        event.preventDefault();
        document.body.classList.add('dropping');
    });
    document.addEventListener('dragleave', () => document.body.classList.remove('dropping'));
    document.addEventListener('drop', event => {
        event.preventDefault();
        document.body.classList.remove('dropping');
        if (loaded || !event.dataTransfer) return;
        filesOf(event.dataTransfer.items).then(files => {
            dropped = files;
            choose('files');
            picker.requestSubmit();
        }, showProblem);
    });
}
