/* The report: this place, the loaded model, and what the diagnostics found, to be pasted into an issue. */
import {element, say} from './dom.js';
import {explainInText, onModel} from './model.js';

/* What was found, by the name of what found it. */
const found = new Map<string, string>();

function thisPlace(): string {
    const {userAgent, hardwareConcurrency, language} = navigator;
    const memory = (navigator as {deviceMemory?: number}).deviceMemory;
    return [
        `browser: ${userAgent}`,
        `machine: ${hardwareConcurrency} threads${memory ? `, ${memory} GB or more` : ''}, ${screen.width} × ${screen.height}, ${language}`,
        `page: ${location.origin}, ${crossOriginIsolated ? '' : 'not '}isolated; WebGPU ${'gpu' in navigator ? 'offered' : 'missing'}`,
    ].join('\n');
}

async function showReport(): Promise<void> {
    const parts = [['This place', thisPlace()], ['The model', await explainInText()], ...found];
    element('report').textContent = parts.map(([title, text]) => `# ${title}\n\n${text}\n`).join('\n');
}

/** Adds a part, in place of an earlier one of that title. */
export function report(title: string, text: string): Promise<void> {
    found.set(title, text);
    return showReport();
}

async function copy(): Promise<void> {
    const report = element('report');
    try {
        await navigator.clipboard.writeText(report.textContent!);
        say('report-done', 'Copied.');
    } catch { /* not allowed, or not there */
        getSelection()!.selectAllChildren(report);
        say('report-done', 'Selected: copy it with the keyboard.');
    }
}

function save(): void {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([element('report').textContent!], {type: 'text/plain'}));
    link.download = 'dibit-report.txt';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    say('report-done', 'Saved.');
}

export function setUpReport(): void {
    element('report-copy').addEventListener('click', () => void copy());
    element('report-save').addEventListener('click', save);
    onModel(() => void showReport());
}
