/* Reports of verify, diff and trace as text: what the command line prints, with what an issue needs besides. */
import type {Place} from './debug.js';
import type {DiffMeasure, DiffNode, DiffReport} from './diff.js';
import type {TraceProduct, TraceReport} from './trace.js';
import type {VerifyReport} from './verify.js';

/** A report as text that can be pasted into an issue. */
export function formatReport(report: VerifyReport | DiffReport | TraceReport): string {
    const body = report.kind === 'verify' ? verifyLines(report)
        : report.kind === 'diff' ? diffLines(report) : traceLines(report);
    return [...placeLines(report, report.kind), ...body].join('\n');
}

function placeLines(place: Place, kind: string): string[] {
    const lines = [`dibit ${place.version} ${kind} on ${place.device}`];
    if (place.why) lines.push(place.why);
    lines.push(`runtime: ${place.runtime}; binary: ${place.binary}`);
    if (place.adapter) {
        const {vendor, architecture, description, isFallbackAdapter} = place.adapter;
        lines.push(`adapter: ${[vendor, architecture, description, isFallbackAdapter && 'fallback']
            .filter(Boolean).join(', ')}`);
    }
    if (place.features) lines.push(`features: ${place.features.join(' ')}`);
    if (place.limits) {
        lines.push(`limits: ${Object.entries(place.limits).map(([name, value]) => `${name} ${value}`).join(', ')}`);
    }
    return lines;
}

function verifyLines(report: VerifyReport): string[] {
    const lines: string[] = [];
    for (const k of report.kernels) {
        const name = k.kernel.padEnd(38);
        lines.push(k.verdict === 'skipped' ? `skipped ${name} ${k.text}`
            : `${k.verdict.padEnd(7)} ${name} ${String(k.cases).padStart(4)} cases, ${
                String(k.codes).padStart(9)} codes`);
        if (k.verdict === 'failed') lines.push(`FAILED ${k.kernel}: ${k.failedCases} cases, first ${k.text}`);
    }
    lines.push(`${report.codes} codes read in ${report.seconds.toFixed(1)} s`);
    lines.push(`${report.passed} passed, ${report.failed} failed, ${report.skipped} skipped`);
    return lines;
}

/* ---- diff ---- */

const short = (value: number | null, digits = 3) => value === null ? 'inf' : String(Number(value.toPrecision(digits)));

function measureText(m: DiffMeasure | null, otherwise: string): string {
    const [off, used] = !m ? [otherwise, ''] : m.problem ? ['failed', 'WRONG']
        : [short(m.largest), m.wrong ? 'WRONG' : `${short(m.used === null ? null : 100 * m.used)}%`];
    return `${off.padStart(10)} ${used.padStart(8)}`;
}

const opName = (node: DiffNode) => node.domain ? `${node.domain}.${node.op}` : node.op;

function worstLine(how: string, m: DiffMeasure | null): string[] {
    if (!m?.wrong) return [];
    if (m.problem) return [`${how}: '${m.value}': ${m.problem}`];
    return [`${how}: '${m.value}' [${m.index}] is ${m.got}, on the CPU ${m.expected}: off by ${short(m.off)}, allowed ${
        short(m.allowed)}; ${m.wrongElements} of ${m.elements} elements are beyond their bound`];
}

function diffLines(report: DiffReport): string[] {
    const lines: string[] = [], {first} = report;
    for (const pass of report.passes) {
        lines.push(pass.name, `   node device${'alone'.padStart(11)}${'used'.padStart(9)}${'in chain'.padStart(11)}${
            'used'.padStart(9)}  op, name`);
        for (const [i, node] of pass.nodes.entries()) {
            lines.push(`  ${String(i).padStart(5)} ${node.place.padEnd(6)}${measureText(node.alone, '-')} ${
                measureText(node.chain, node.place === 'fused' ? 'fused' : '-')}  ${opName(node)} ${node.name}${
                node.notAlone && `; ${node.notAlone}`}`);
        }
    }
    if (first) {
        const node = report.passes.find(pass => pass.name === first.pass)!.nodes[first.node];
        lines.push(`FIRST ${first.pass}: node ${first.node}, ${first.op} ${
            first.alone ? 'by itself' : 'in the chain, though no node is wrong by itself'}${
            node.config && `: ${node.config}`}`, first.text,
                   ...worstLine('  alone', node.alone), ...worstLine('  in the chain', node.chain));
    }
    lines.push(`${report.onDevice} of ${report.nodes} nodes on the device, ${report.alone} of them compared by themselves; ${
        first ? 'they differ' : report.onDevice === 0 ? 'there is nothing to compare' : 'all within their bounds'}; ${
        report.seconds.toFixed(1)} s`);
    return lines;
}

/* ---- trace ---- */

const number = (value: number | null) => value === null ? '-' : short(value, 7);

/* Columns of a product, and how wide they are. */
const COLUMNS: [string, number, (p: TraceProduct, report: TraceReport) => string][] = [
    ['byte', 9, p => number(p.address === null ? null : p.address + (p.shift >> 3))],
    ['word', 10, p => `0x${p.word.toString(16).padStart(8, '0')}`],
    ['shift', 5, p => String(p.shift)],
    ['mask', 5, p => `0x${p.mask.toString(16).padStart(2, '0')}`],
    ['code', 5, p => String(p.code)],
    ['block', 5, p => String(p.block)],
    ['zero:bit', 10, p => p.zeroAddress === null ? '-' : `${p.zeroAddress}:${p.zeroShift}`],
    ['zero', 7, p => number(p.zeroPoint)],
    ['scale at', 9, p => number(p.scaleAddress)],
    ['scale', 11, p => number(p.scale)],
    ['A index', 8, p => number(p.aIndex)],
    ['A', 12, p => number(p.a)],
    ['int8', 5, (p, report) => report.int8Activations ? String(p.aCode) : '-'],
    ['product', 13, p => number(p.product)],
    ['sum', 13, p => number(p.sum)],
];

function productLine(side: string, k: number, p: TraceProduct, report: TraceReport): string {
    return `${side.padEnd(8)} ${String(k).padStart(5)} ${
        COLUMNS.map(([, width, text]) => text(p, report).padStart(width)).join(' ')}`;
}

function traceLines(report: TraceReport): string[] {
    const lines = [`${report.node}: ${report.bits} bits, block ${report.blockSize}, M ${report.M}, N ${report.N}, K ${
        report.K}, element [${report.row},${report.column}]${report.kernel && `, ${report.kernel}`}`,
                   `         ${'k'.padStart(5)} ${COLUMNS.map(([name, width]) => name.padStart(width)).join(' ')}`];
    for (const {k, expected, got} of report.products) {
        if (report.firstWrong < 0 || k < report.firstWrong) {
            lines.push(productLine('', k, expected, report));
        } else {
            lines.push(productLine('expected', k, expected, report), productLine('got', k, got, report));
        }
    }
    lines.push(`sum ${short(report.sum, 9)}, output ${short(report.got, 9)}, expected ${short(report.expected, 9)} within ${
        short(report.allowed)}`);
    lines.push(report.firstWrong >= 0 ? `FIRST WRONG BIT: ${report.text}` : report.wrong ? report.text
        : report.kernel ? 'every product is as defined, and so is the output' : "the CPU's output is as defined");
    return lines;
}
