/* Which model: the shipped one, one at an address, or files of this machine, chosen or dropped. */
import {evict, storedFiles} from 'dibit/engine';

import {element, megabytes, show} from './dom.js';
import {showProblem} from './problems.js';

export interface Choice {
    /** What load() takes. */
    from: string | File[];
    name: string;
}

type Kind = 'shipped' | 'url' | 'files';

const SHIPPED = {from: 'models/smollm2-135m-instruct-2bit/', name: 'SmolLM2 135M Instruct'};
let files: File[] = [];

const picker = () => element<HTMLFormElement>('picker');

export function choice(): Choice {
    const kind = new FormData(picker()).get('model') as Kind;
    if (kind === 'files') {
        if (files.length === 0) throw new Error('Choose the folder of a model, or its files.');
        return {from: files, name: nameOfFiles()};
    }
    if (kind === 'shipped') return {...SHIPPED, from: new URL(SHIPPED.from, location.href).href};
    const text = element<HTMLInputElement>('url').value.trim();
    if (!text) throw new Error('Write the address of the model\'s folder.');
    /* Often without its beginning. */
    const address = /^[\w-]+(\.[\w-]+)+\//.test(text) ? `https://${text}` : text;
    if (!URL.canParse(address, location.href)) throw new Error(`'${text}' is no address.`);
    const url = new URL(address, location.href);
    return {from: url.href, name: url.pathname.replace(/\/$/, '').split('/').pop() || url.host};
}

function nameOfFiles(): string {
    const folder = files[0].webkitRelativePath.split('/')[0];
    return folder || files.find(f => f.name.endsWith('.onnx'))?.name || files[0].name;
}

function select(kind: Kind): void {
    picker().querySelector<HTMLInputElement>(`input[value=${kind}]`)!.checked = true;
    show(kind === 'url', element('url'));
    show(kind === 'files', element('files'));
}

function take(list: File[]): void {
    files = list;
    element('chosen').textContent = list.length === 0 ? '' : `${nameOfFiles()}: ${list.length} files, ${
        megabytes(list.reduce((n, f) => n + f.size, 0))}`;
}

// ---- Dropping ----------------------------------------------------------------------------------

async function addFiles(entry: FileSystemEntry, path: string, to: File[]): Promise<void> {
    if (entry.isFile) {
        const file = await new Promise<File>((ok, no) => (entry as FileSystemFileEntry).file(ok, no));
        /* As a folder that is chosen has it: dropped files do not say where they lay. */
        Object.defineProperty(file, 'webkitRelativePath', {value: path && path + file.name});
        to.push(file);
        return;
    }
    const reader = (entry as FileSystemDirectoryEntry).createReader();
    for (;;) {
        const some = await new Promise<FileSystemEntry[]>((ok, no) => reader.readEntries(ok, no));
        if (some.length === 0) return;
        for (const e of some) await addFiles(e, `${path}${entry.name}/`, to);
    }
}

async function drop(transfer: DataTransfer): Promise<void> {
    const dropped = [...transfer.items].map(item => item.webkitGetAsEntry() ?? item.getAsFile()), found: File[] = [];
    for (const entry of dropped) {
        if (entry instanceof File) found.push(entry);
        else if (entry) await addFiles(entry, '', found);
    }
    if (found.length === 0) return;
    take(found);
    select('files');
    picker().requestSubmit();
}

function setUpDropping(): void {
    const dropping = (yes: boolean) => document.body.classList.toggle('dropping', yes && !picker().hidden);
    document.addEventListener('dragover', event => {
        event.preventDefault();
        dropping(true);
    });
    document.addEventListener('dragleave', event => {
        if (!event.relatedTarget) dropping(false);
    });
    document.addEventListener('drop', event => {
        event.preventDefault();
        dropping(false);
        if (!picker().hidden && event.dataTransfer) drop(event.dataTransfer).catch(showProblem);
    });
}

// ---- What is kept ------------------------------------------------------------------------------

export async function showKept(): Promise<void> {
    const kept = await storedFiles(), bytes = kept.reduce((n, file) => n + file.storedBytes, 0);
    show(bytes > 0, element('kept'));
    element('kept').querySelector('span')!.textContent = `${megabytes(bytes)} of models are kept here, and load without a network.`;
}

// ----------------------------------------------------------------------------------------------

function setUpFiles(): void {
    for (const [button, input] of [['choose-folder', 'folder'], ['choose-files', 'several']]) {
        const chooser = element<HTMLInputElement>(input);
        element(button).addEventListener('click', () => chooser.click());
        chooser.addEventListener('change', () => take([...(chooser.files ?? [])]));
    }
}

/* ?model=ADDRESS&device=wasm in the page's own address choose beforehand. */
function fromAddress(): void {
    const given = new URLSearchParams(location.search), model = given.get('model'), device = given.get('device');
    if (model) {
        element<HTMLInputElement>('url').value = new URL(model, location.href).href;
        select('url');
    }
    if (device) element<HTMLSelectElement>('choose-device').value = device;
}

function hintAtDevice(): void {
    if ('gpu' in navigator) return;
    const hint = element('device-hint');
    hint.textContent = isSecureContext ? 'This browser has no WebGPU: the CPU will run the model.'
        : 'WebGPU and the cache are for pages from https or localhost alone: the CPU will run the model.';
    show(true, hint);
}

export function setUpPicker(): void {
    picker().addEventListener('change', event => {
        const input = event.target as HTMLInputElement;
        if (input.name === 'model') select(input.value as Kind);
    });
    element('kept-remove').addEventListener('click', () => void evict().then(showKept).catch(showProblem));
    setUpFiles();
    setUpDropping();
    fromAddress();
    hintAtDevice();
    showKept().catch(showProblem);
}
