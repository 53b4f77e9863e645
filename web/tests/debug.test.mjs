// dibit/verify: verify, diff and trace on a GPU whose shaders have a mistake, down to the bit; and on one that is right.
import assert from 'node:assert/strict';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {pathToFileURL} from 'node:url';
import {built, cases} from './support.mjs';
import {Engine} from './web.mjs';

const {diff, formatReport, trace, verify} = await import(pathToFileURL(join(built, 'verify.js')).href);
const LLAMA = join(cases, 'llama.q2');
/* In matvecs every zero point of a byte is read as its first. */
const RIGHT = 'let shift = byte % 4u * 8u + g * BITS % 8u;', WRONG = 'let shift = byte % 4u * 8u;';

/* Each of these compiles all shaders of a session, for SwiftShader half a minute. */
const slow = process.env.DIBIT_FULL === '1' ? undefined : 'only with DIBIT_FULL=1';
let engine, skip, gpuDevice, compile, mistakes = 0;

before(async () => {
    try {
        engine = await Engine.create({device: 'webgpu'});
    } catch (e) {
        skip = e.message;
        return;
    }
    gpuDevice = engine.gpu.device;
    compile = gpuDevice.createShaderModule.bind(gpuDevice);
});
after(() => engine?.dispose());

/** On a device with that mistake in its shaders. */
async function withMistake(work) {
    mistakes = 0;
    gpuDevice.createShaderModule = ({code, label}) => {
        const wrong = label.startsWith('nbits_matvec') && code.includes(RIGHT);
        mistakes += wrong;
        return compile({label, code: wrong ? code.replace(RIGHT, WRONG) : code});
    };
    try {
        await work();
        assert.ok(mistakes > 0, 'the shader is another: no mistake was made');
    } finally {
        gpuDevice.createShaderModule = compile;
    }
}

test('diff: a right GPU is within its bounds, prompt and step', async t => {
    if (skip ?? slow) return t.skip(skip ?? slow);
    const told = [];
    const report = await diff(LLAMA, {gpuDevice, decode: true, tokens: 3, onProgress: p => told.push({...p})});
    assert.equal(report.first, null, formatReport(report));
    assert.deepEqual(report.passes.map(p => p.name), ['prompt', 'step']);
    assert.ok(report.alone > 40 && report.onDevice >= report.alone && report.nodes > report.onDevice);
    const step = report.passes[1].nodes.find(node => node.op === 'MatMulNBits');
    assert.ok(step.alone.used > 0 && step.alone.used < 1, JSON.stringify(step));
    assert.match(step.config, /^2 bits, block 32/);
    assert.deepEqual(JSON.parse(JSON.stringify(report)), report);
    assert.ok(told.some(p => p.stage === 'compare' && p.done > 0 && p.done <= p.total));
    assert.match(formatReport(report), /all within their bounds/);
    assert.match(formatReport(report), /^dibit .* diff on .*\nruntime: Node/);
});

test('a mistake in a shader: verify names the kernel, diff the node and the element, trace the bit', async t => {
    if (skip ?? slow) return t.skip(skip ?? slow);
    await withMistake(async () => {
        const verified = await verify({gpuDevice, device: 'webgpu', scope: 'quick', activations: 'int8'});
        assert.ok(verified.failed > 0);
        const kernel = verified.kernels.find(k => k.verdict === 'failed');
        assert.match(formatReport(verified), new RegExp(`FAILED ${kernel.kernel}: .*zero point`));

        const compared = await diff(LLAMA, {gpuDevice, noProof: true});
        const {first} = compared, node = compared.passes[0].nodes[first.node];
        assert.equal(first.op, 'MatMulNBits', formatReport(compared));
        assert.equal(first.alone, true);
        assert.equal(node.alone.wrong, true);
        assert.equal(node.alone.index.length, 3);
        assert.notEqual(node.alone.got, node.alone.expected);
        assert.match(first.text, /^node '.*' com.microsoft.MatMulNBits\(/);
        assert.match(formatReport(compared), /FIRST prompt: node 7, MatMulNBits by itself: 2 bits, block 32/);
        assert.match(formatReport(compared), / {2}alone: '.*' \[\d+,\d+,\d+\] is .*, on the CPU .*: off by /);

        const traced = await trace(LLAMA, {gpuDevice, noProof: true, node: first.name, index: node.alone.index});
        assert.equal(traced.wrong, true);
        assert.deepEqual([traced.row, traced.column], [node.alone.index[1], node.alone.index[2]]);
        assert.equal(traced.products.length, traced.firstWrong + 1);
        const {expected, got} = traced.products.at(-1);
        assert.equal(got.zeroShift, 0);
        assert.notEqual(expected.zeroShift, 0);
        assert.equal(got.code, expected.code);
        assert.match(traced.text, /^k \d+: the zero point's first bit in its byte is 0, expected/);
        assert.deepEqual(JSON.parse(JSON.stringify(traced)), traced);
        assert.match(formatReport(traced), /\nFIRST WRONG BIT: k \d+: the zero point/);
    });
});

test('with proofs, what is wrong is not used, and nothing is wrong', async t => {
    if (skip ?? slow) return t.skip(skip ?? slow);
    await withMistake(async () => {
        const report = await diff(LLAMA, {gpuDevice, tokens: 3, activations: 'float'});
        assert.equal(report.first, null, formatReport(report));
        assert.ok(report.passes[0].nodes.some(n => n.op === 'MatMulNBits' && n.alone), formatReport(report));
    });
});

test('trace: an element that is right, on the GPU and on the CPU', async t => {
    if (skip ?? slow) return t.skip(skip ?? slow);
    const node = '/model/layers.0/attn/qkv_proj/MatMul_Q2';
    for (const where of [{gpuDevice}, {device: 'wasm'}]) {
        const report = await trace(LLAMA, {...where, node, index: [3, 82], all: true});
        assert.equal(report.wrong, false, formatReport(report));
        assert.equal(report.products.length, 64);
        assert.equal(report.kernel !== '', 'gpuDevice' in where);
        const {sum} = report.products.at(-1).expected;
        assert.ok(Math.abs(sum - report.sum) < 1e-5);
        assert.match(formatReport(report), /as defined/);
    }
});

test('a device that computes nothing is wrong at once; a comparison is given up; wrong use says so', async () => {
    const report = await diff(join(LLAMA, 'model.onnx'), {device: 'null'});
    assert.equal(report.first.op, 'Gather');
    assert.equal(report.passes[0].nodes[report.first.node].alone.got, '0');
    const stop = new AbortController();
    await assert.rejects(diff(LLAMA, {
        device: 'null', signal: stop.signal, onProgress: ({stage}) => stage === 'compare' && stop.abort(new Error('enough')),
    }), /enough/);
    await assert.rejects(diff(LLAMA, {device: 'wasm'}), /there is no GPU to compare with the CPU/);
    await assert.rejects(diff(LLAMA, {device: 'null', tokens: 0}), /tokens is 1 to 4096/);
    await assert.rejects(diff(join(cases, 'nothing'), {device: 'null'}), /no model.onnx/);
    await assert.rejects(trace(LLAMA, {device: 'wasm', node: 'nobody', index: [0, 0]}), /no node 'nobody'/);
});
