/* The diagnostics: verify on this device, and a report of all that is known, to be pasted into an issue. */
import {formatReport} from 'dibit/verify';
import type {KernelReport, VerifyReport} from 'dibit/verify';

import {addRow, chosen, clearRows, element, say, whileRunning} from './dom.js';
import {runJob} from './jobs.js';
import {explainInText, onModel} from './model.js';
import {inWords, isStop} from './problems.js';

// ---- The report --------------------------------------------------------------------------------

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

// ---- verify ------------------------------------------------------------------------------------

function showKernels(kernels: KernelReport[]): void {
    const table = element<HTMLTableElement>('verify-table');
    clearRows(table);
    for (const {kernel, cases, codes, verdict, text} of kernels) {
        addRow(table, [kernel, cases.toLocaleString('en'), codes.toLocaleString('en'), [verdict, text].filter(s => s).join(': ')], verdict);
    }
}

function verdictOf({passed, failed, skipped, codes, seconds, device}: VerifyReport): string {
    return `${failed === 0 ? 'Yes' : 'Not everywhere'}: ${passed} kernels passed, ${failed} failed, ${skipped} were skipped. ${
        codes.toLocaleString('en')} codes read in ${seconds.toFixed(1)} s on ${device}.`;
}

async function verify(signal: AbortSignal): Promise<void> {
    const device = chosen<'webgpu' | 'wasm'>('verify-device');
    const scope = element<HTMLInputElement>('verify-quick').checked ? 'quick' : 'normal';
    clearRows(element('verify-table'));
    say('verify-result', 'Reading codes …');
    try {
        const report = await runJob<VerifyReport, KernelReport[]>('verify', [device, scope], {
            signal,
            onEvent: kernels => {
                showKernels(kernels);
                say('verify-result', `${kernels.length} kernels so far …`);
            },
        });
        showKernels(report.kernels);
        say('verify-result', verdictOf(report), report.failed > 0);
        found.set(`Verify, ${device}, ${scope}`, formatReport(report));
    } catch (error) {
        say('verify-result', isStop(error) ? 'Stopped.' : inWords(error), !isStop(error));
        if (!isStop(error)) found.set(`Verify, ${device}, ${scope}`, inWords(error));
    }
    await showReport();
}

export function setUpDiagnostics(): void {
    const button = element<HTMLButtonElement>('verify'), stop = element<HTMLButtonElement>('verify-stop');
    if (!('gpu' in navigator)) element<HTMLSelectElement>('verify-device').value = 'wasm';
    button.addEventListener('click', () => void whileRunning(button, stop, verify));
    element('report-copy').addEventListener('click', () => void copy());
    element('report-save').addEventListener('click', save);
    onModel(() => void showReport());
}
