/* The diagnostics: verify on this device, diff and trace of the loaded model; each also goes into the report. */
import type {DiffMeasure, DiffReport, KernelReport, TraceReport, VerifyReport} from 'dibit/verify';

import {addRow, chosen, clearRows, element, megabytes, say, whileRunning} from './dom.js';
import type {Reported} from './job.js';
import {runJob} from './jobs.js';
import {currentModel, onModel} from './model.js';
import {inWords, isStop} from './problems.js';
import {report} from './report.js';

interface Progress {
    stage: string;
    done: number;
    total: number;
}

/* Runs a job, with its line on the page and its part of the report. */
async function diagnose<R, E>(name: 'verify' | 'diff' | 'trace', title: string, args: unknown[], signal: AbortSignal,
                              onEvent: (event: E) => void, show: (report: R) => void): Promise<void> {
    const line = `${name}-result`;
    say(line, 'Getting ready …');
    try {
        const {report: found, text} = await runJob<Reported<R>, E>(name, args, {signal, onEvent});
        show(found);
        await report(title, text);
    } catch (error) {
        say(line, isStop(error) ? 'Stopped.' : inWords(error), !isStop(error));
        if (!isStop(error)) await report(title, inWords(error));
    }
}

function tellProgress(line: string): (progress: Progress) => void {
    return ({stage, done, total}) => say(line, stage === 'model' ? `${megabytes(done)} of ${megabytes(total)} …`
        : `${Math.round((100 * done) / Math.max(1, total))}% …`);
}

// ---- verify ------------------------------------------------------------------------------------

function showKernels(kernels: KernelReport[]): void {
    const table = element<HTMLTableElement>('verify-table');
    const order = ['failed', 'passed', 'skipped'];
    clearRows(table);
    for (const {kernel, cases, codes, verdict, text} of kernels.toSorted((a, b) => order.indexOf(a.verdict) - order.indexOf(b.verdict))) {
        addRow(table, [kernel, cases.toLocaleString('en'), codes.toLocaleString('en'), [verdict, text].filter(s => s).join(': ')], verdict);
    }
}

function verify(signal: AbortSignal): Promise<void> {
    const device = chosen<'webgpu' | 'wasm'>('verify-device');
    const scope = element<HTMLInputElement>('verify-quick').checked ? 'quick' : 'normal';
    clearRows(element('verify-table'));
    return diagnose<VerifyReport, KernelReport[]>('verify', `Verify, ${device}, ${scope}`, [{device, scope}], signal, kernels => {
        showKernels(kernels);
        say('verify-result', `${kernels.length} kernels so far …`);
    }, ({kernels, passed, failed, skipped, codes, seconds, device}) => {
        showKernels(kernels);
        say('verify-result', `${failed === 0 ? 'Yes' : 'Not everywhere'}: ${passed} kernels passed, ${failed} failed, ${
            skipped} were skipped. ${codes.toLocaleString('en')} codes read in ${seconds.toFixed(1)} s on ${device}.`, failed > 0);
    });
}

// ---- diff --------------------------------------------------------------------------------------

/* Else plainer kernels take the place of those, and nothing is wrong: that is how the model runs. Trace asks, too. */
const isUnproved = () => element<HTMLInputElement>('diff-unproved').checked;
const titleOf = (what: string) => `${what}${isUnproved() ? ', with kernels that failed their proof' : ''}`;

/* A measure's share of its bound, in words. */
function share(measure: DiffMeasure | null, otherwise: string): string {
    if (!measure) return otherwise;
    if (measure.problem) return measure.problem;
    return measure.used === null ? 'not finite' : `${(100 * measure.used).toPrecision(2)}%`;
}

function diff(signal: AbortSignal): Promise<void> {
    const {from, name, lm} = currentModel()!, table = element<HTMLTableElement>('diff-table');
    clearRows(table);
    const options = {model: lm.model.file, decode: true, noProof: isUnproved()};
    return diagnose<DiffReport, Progress>('diff', titleOf(`Diff, ${name}`), [from, options], signal, tellProgress('diff-result'), found => {
        const {first, nodes, onDevice, alone, seconds, device} = found;
        for (const pass of found.passes) {
            for (const node of pass.nodes) {
                if (node.place === 'cpu') continue;
                const wrong = node.alone?.wrong || node.chain?.wrong;
                addRow(table, [`${node.name} (${pass.name})`, node.op, share(node.alone, '–'),
                               share(node.chain, node.place === 'fused' ? 'fused' : '–')], wrong ? 'failed' : '');
            }
        }
        say('diff-result', `${first ? `They differ, first at ${first.name} (${first.op})${first.alone ? '' : ', in the chain alone'}.`
            : onDevice === 0 ? 'Nothing of this model runs on the GPU.' : 'They agree: every node is within its bound.'} ${
            onDevice} of ${nodes} nodes on ${device}, ${alone} of them also by themselves, in ${seconds.toFixed(1)} s.`, first !== null);
        const at = first && found.passes.find(pass => pass.name === first.pass)!.nodes[first.node];
        offerNodes(found, at?.op === 'MatMulNBits' ? {node: at.name, index: (at.alone?.wrong ? at.alone : at.chain)!.index} : null);
    });
}

// ---- trace -------------------------------------------------------------------------------------

/* What trace can look at; the wrong one is filled in. */
function offerNodes({passes}: DiffReport, wrong: {node: string; index: number[]} | null): void {
    const nodes = passes[0].nodes.filter(node => node.op === 'MatMulNBits').map(node => node.name);
    element('trace-nodes').replaceChildren(...nodes.map(node => new Option(node, node)));
    element<HTMLInputElement>('trace-node').value = wrong?.node ?? nodes[0] ?? '';
    element<HTMLInputElement>('trace-index').value = wrong?.index.join(', ') ?? '0, 0';
}

async function trace(signal: AbortSignal): Promise<void> {
    const {from, name, lm} = currentModel()!, node = element<HTMLInputElement>('trace-node').value.trim();
    const index = element<HTMLInputElement>('trace-index').value.split(',').map(Number), device = chosen('trace-device');
    clearRows(element('trace-table'));
    if (index.length < 2 || !index.every(i => Number.isInteger(i) && i >= 0)) {
        say('trace-result', 'An element is told by its row and column: 0, 5', true);
        return;
    }
    const options = {model: lm.model.file, node: node || undefined, index, device, noProof: isUnproved()};
    await diagnose<TraceReport, Progress>('trace', titleOf(`Trace, ${name}, ${node} [${index}]`), [from, options], signal,
                                          tellProgress('trace-result'), showTrace);
}

function showTrace(found: TraceReport): void {
    const table = element<HTMLTableElement>('trace-table'), show = (value: number | null) => value === null ? '–' : String(Number(value.toPrecision(7)));
    for (const {k, expected, got} of found.products) {
        const sides = found.firstWrong >= 0 && k >= found.firstWrong ? [['expected', expected], ['got', got]] as const
            : [['', expected]] as const;
        for (const [side, p] of sides) {
            addRow(table, [`${k} ${side}`.trim(), `0x${p.word.toString(16).padStart(8, '0')}`, String(p.shift), String(p.code),
                           show(p.zeroPoint), show(p.scale), show(p.a), show(p.sum)], side === 'got' ? 'failed' : '');
        }
    }
    say('trace-result', [
        found.text || (found.kernel ? 'Every product is as defined, and so is the output.' : 'The output is as defined.'),
        `It is ${show(found.got)}, expected ${show(found.expected)} within ${show(found.allowed)}.`,
        found.kernel && `Kernel: ${found.kernel}.`,
    ].filter(s => s).join(' '), found.wrong);
}

// ------------------------------------------------------------------------------------------------

export function setUpDiagnostics(): void {
    for (const [name, work] of Object.entries({verify, diff, trace})) {
        const button = element<HTMLButtonElement>(name), stop = element<HTMLButtonElement>(`${name}-stop`);
        button.addEventListener('click', () => void whileRunning(button, stop, work));
    }
    if (!('gpu' in navigator)) {
        for (const id of ['verify-device', 'trace-device']) element<HTMLSelectElement>(id).value = 'wasm';
    }
    onModel(loaded => {
        for (const id of ['diff', 'trace']) {
            element<HTMLButtonElement>(id).disabled = !loaded;
            say(`${id}-result`, loaded ? '' : 'Load a model first.');
            clearRows(element(`${id}-table`));
        }
    });
}
