/* What went wrong, in words for people who do not know what an adapter is. */
import {element, show} from './dom.js';

interface Words {
    title: string;
    /** What to do about it. */
    advice?: string;
}

const byStatus: Record<string, Words> = {
    DEVICE_UNAVAILABLE: {
        title: 'This browser offers no WebGPU here',
        advice: 'Chrome and Edge have it from version 113, Safari from 26, Firefox from 141; on some systems it has to be switched on. '
            + 'Choose the CPU to run the model without it.',
    },
    DEVICE_LOST: {
        title: 'The GPU went away',
        advice: 'Its driver was restarted, or it ran out of memory. Load the model again, or choose the CPU.',
    },
    OUT_OF_MEMORY: {
        title: 'There is not enough memory',
        advice: 'The model does not fit what the browser or the GPU allows here. Close other tabs, or choose a smaller model.',
    },
    IO: {title: 'The model could not be fetched'},
    BAD_FILE: {title: 'This is not a model that can be read'},
    TOO_LARGE: {title: 'This model is too large'},
    NOT_FOUND: {
        title: 'A file of the model is missing',
        advice: 'A model is a folder: model.onnx, or onnx/model_q4.onnx and the like, with tokenizer.json and config.json beside it.',
    },
    UNSUPPORTED: {title: 'Dibit cannot run this model yet'},
    CAPACITY: {title: 'The conversation is longer than the model can follow', advice: 'Begin a new one.'},
};

const offline: Words = {
    title: 'This machine is offline',
    advice: 'Models that were fetched before are kept, and work without a network; this one is not, or not whole.',
};
const broken: Words = {title: 'The engine stopped', advice: 'Load the model again; the diagnostics may say more.'};

function wordsFor(error: unknown): Words {
    const {status = '', name = '', message = ''} = error as {status?: string; name?: string; message?: string};
    if (status === 'IO' && !navigator.onLine) return offline;
    if (name === 'RangeError' && /memory|allocation/i.test(message)) return byStatus.OUT_OF_MEMORY;
    if (name === 'RuntimeError' || /worker/.test(message)) return broken;
    return byStatus[status] ?? {title: 'That did not work'};
}

/** Whether it only says that the user stopped something. */
export function isStop(error: unknown): boolean {
    const {status, name} = error as {status?: string; name?: string};
    return name === 'AbortError' || status === 'CANCELLED';
}

/** One line, for a place of its own. */
export function inWords(error: unknown): string {
    return `${wordsFor(error).title}: ${(error as Error).message}`;
}

export function clearProblem(): void {
    show(false, element('problem'));
}

export function showProblem(error: unknown): void {
    if (isStop(error)) return;
    const box = element('problem'), {title, advice} = wordsFor(error);
    box.querySelector('b')!.textContent = title;
    box.querySelector('p')!.textContent = advice ?? '';
    box.querySelector('small')!.textContent = (error as Error).message ?? String(error);
    show(true, box);
    box.scrollIntoView({block: 'nearest'});
    console.warn(error);
}

export function setUpProblems(): void {
    element('problem').querySelector('button')!.addEventListener('click', clearProblem);
}
