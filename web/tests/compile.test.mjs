// Shaders that the GPU compiles late, or not at all.
import assert from 'node:assert/strict';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {Engine, fakeDevice, root} from './web.mjs';

const LLAMA = join(root, 'tests/data/cases/llama.q2/model.onnx');

let engine, skip, compile;

before(async () => {
    try {
        engine = await Engine.create({device: 'webgpu'});
    } catch (e) {
        skip = e.message;
        return;
    }
    compile = engine.gpu.device.createShaderModule.bind(engine.gpu.device);
});
after(() => engine?.dispose());

const int64 = (n, value) => ({type: 'int64', dims: [1, n], data: BigInt64Array.from({length: n}, (_, i) => BigInt(value(i)))});
const inputs = {input_ids: int64(3, i => 7 * i), attention_mask: int64(3, () => 1)};

/** Works on a GPU that does not compile the shaders whose names begin so. */
async function without(name, work) {
    const {device} = engine.gpu;
    device.createShaderModule = ({code, label}) => compile({label, code: label.startsWith(name) ? `${code}\nfn no(` : code});
    const own = await Engine.create({gpuDevice: device});
    try {
        await work(await own.loadModel(LLAMA));
    } finally {
        own.dispose();
        device.createShaderModule = compile;
    }
}

async function onCpu() {
    const own = await Engine.create({device: 'wasm'}), session = await (await own.loadModel(LLAMA)).createSession(
        {activations: 'float'});
    const {logits} = await session.run({inputs, states: [session.createState()], outputs: ['logits']});
    own.dispose();
    return logits.data;
}

const near = (got, want) => got.forEach((v, i) => assert.ok(Math.abs(v - want[i]) < 1e-3, `${i}: ${v}, ${want[i]}`));

test('a kernel that does not compile is left for a plainer one', async t => {
    if (skip) return t.skip(skip);
    await without('nbits_matvec', async model => {
        const session = await model.createSession({activations: 'float'});
        const kernels = session.steps().filter(s => s.device === 'webgpu' && s.op.includes('MatMulNBits')).map(s => s.kernel);
        assert.ok(kernels.length > 0);
        kernels.forEach(kernel => assert.doesNotMatch(kernel, /matvec/));
        const {logits} = await session.run({inputs, states: [session.createState()], outputs: ['logits']});
        near(logits.data, await onCpu());
    });
});

test('what the language of shaders knows is asked of a device, whoever opened it', async t => {
    if (skip) return t.skip(skip);
    const own = await Engine.create({gpuDevice: engine.gpu.device});
    t.after(() => own.dispose());
    assert.equal(engine.gpu.hasDot4, true); // Dawn's language has it wherever it runs
    assert.equal(own.gpu.hasDot4, true);
    await without('dot4', async model => {
        assert.equal(model.engine.gpu.hasDot4, false);
    });
});

test('an op whose shader does not compile, in the middle of a run, is left to the CPU with the session', async t => {
    if (skip) return t.skip(skip);
    await without('norm_rows', async model => {
        const session = await model.createSession({activations: 'float', cpuFallback: true, noFusion: true});
        const state = session.createState(), run = () => session.run({inputs, states: [state], outputs: ['logits']});
        const failure = await run().then(() => null, e => e);
        assert.equal(failure?.status, 'UNSUPPORTED', `${failure}`);
        assert.match(failure.message, /norm_rows\.wgsl: /);
        assert.ok(session.mayLeave(failure));
        await session.leaveDevice(failure);
        assert.match(session.why, /the CPU took over: .*norm_rows\.wgsl/);
        state.truncate(0);
        near((await run()).logits.data, await onCpu());
    });
});

/** What a GPU is told, in its order, when pipelines are ready after so many milliseconds. */
async function orders(ms) {
    const log = [], device = fakeDevice();
    const pass = {
        setPipeline: ({label}) => log.push(`pipeline ${label}`), setBindGroup: (_, group, offsets, from, n) => log.push(
            `group ${group.name} ${n ? offsets[from] : ''}`),
        dispatchWorkgroups: (...n) => log.push(`dispatch ${n}`), end: () => log.push('end'),
    };
    device.createCommandEncoder = () => ({
        beginComputePass: () => pass, resolveQuerySet() {}, finish: () => ({}),
        copyBufferToBuffer: (from, at, to, offset, bytes) => log.push(`copy ${at} ${offset} ${bytes}`),
    });
    device.queue.submit = all => all.length && log.push('submit');
    device.queue.writeBuffer = (_, offset, data, at, n) => log.push(`write ${offset} ${n ?? data.length}`);
    device.createBindGroup = ({entries}) => ({name: entries.map(e => e.resource.size).join()});
    device.createComputePipelineAsync = async ({label}) => {
        if (ms) await new Promise(resolve => setTimeout(resolve, ms));
        return {label};
    };
    const own = await Engine.create({gpuDevice: device});
    const session = await (await own.loadModel(LLAMA)).createSession({noProof: true, noFusion: true});
    await session.run({inputs, states: [session.createState()], outputs: ['logits']});
    own.dispose();
    return log;
}

test('what waits for a pipeline runs in its order', async () => {
    const soon = await orders(0), late = await orders(30);
    assert.ok(soon.filter(line => line.startsWith('dispatch')).length > 20);
    assert.deepEqual(late, soon);
});
