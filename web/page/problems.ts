/* What went wrong, in words for people who do not know what an adapter is. */
import {element, show} from './dom.js';

const advice: Record<string, [title: string, what: string]> = {
    DEVICE_UNAVAILABLE: ['This browser offers no WebGPU',
        'Chrome and Edge have it from version 113, Safari from 26, Firefox from 141 (on some systems it has to be switched on). '
        + 'Choose CPU to run the model without it.'],
    DEVICE_LOST: ['The GPU went away',
        'Its driver was restarted, or it ran out of memory. Load the model again, or choose CPU.'],
    OUT_OF_MEMORY: ['There is not enough memory',
        'The model does not fit what the browser or the GPU allows here. Close other tabs, or choose a smaller model.'],
    IO: ['The model could not be fetched', ''],
    BAD_FILE: ['This is not a model that can be read', ''],
    NOT_FOUND: ['A file of the model is missing', ''],
    UNSUPPORTED: ['Dibit cannot run this model yet', ''],
    CAPACITY: ['The conversation is longer than the model can follow', 'Begin a new one.'],
};

export function clearProblem(): void {
    show(false, element('problem'));
}

/** Shows the error, unless it only says that the user stopped something. */
export function showProblem(error: unknown): void {
    if (error instanceof DOMException && error.name === 'AbortError') return;
    const {status = '', message = String(error)} = error as {status?: string; message?: string};
    if (status === 'CANCELLED') return;
    let [title, what] = advice[status] ?? ['Something went wrong', ''];
    if (status === 'IO' && !navigator.onLine) what = 'This machine is offline. Models that were fetched before are kept and work without a network.';
    const box = element('problem');
    box.querySelector('b')!.textContent = title;
    box.querySelector('p')!.textContent = [what, message].filter(s => s).join(' ');
    show(true, box);
    box.scrollIntoView({block: 'nearest'});
    console.error(error);
}

element('problem').querySelector('button')!.addEventListener('click', clearProblem);
