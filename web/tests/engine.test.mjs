// The classes of engine.ts: runs, states, errors, disposal, the loss of a GPU.
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {verify} from '../../build/web/dist/verify.js';
import {DibitError, Engine, fakeDevice, root} from './web.mjs';

const LLAMA = join(root, 'tests/data/cases/llama.q2/model.onnx');

let engine, model;

before(async () => {
    engine = await Engine.create({device: 'wasm'});
    model = await engine.loadModel(LLAMA);
});
after(() => engine.dispose());

const int64 = (rows, cols, value) => ({
    type: 'int64', dims: [rows, cols], data: BigInt64Array.from({length: rows * cols}, (_, i) => BigInt(value(i))),
});
/** Tokens from `begin` to `end` of a text, with those before in the past. */
const tokens = (begin, end) => ({
    input_ids: int64(1, end - begin, i => (begin + i) * 7 % 500), attention_mask: int64(1, end, () => 1),
});
const fails = (status, pattern) => e => {
    assert.ok(e instanceof DibitError, `${e}`);
    assert.equal(e.status, status, e.message);
    assert.match(e.message, pattern);
    return true;
};

test('a model says what goes in and comes out', () => {
    assert.deepEqual(model.inputs.slice(0, 2), [
        {name: 'input_ids', type: 'int64', dims: ['batch_size', 'sequence_length']},
        {name: 'attention_mask', type: 'int64', dims: ['batch_size', 'total_sequence_length']},
    ]);
    assert.deepEqual(model.outputs[0], {
        name: 'logits', type: 'float', dims: ['batch_size', 'sequence_length', 512],
    });
});

test('states: step by step is as all at once; forks are independent; export and import', async () => {
    const session = await model.createSession({activations: 'float'});
    const whole = session.createState(), parts = session.createState();
    const {logits} = await session.run({inputs: tokens(0, 6), states: [whole]});
    assert.deepEqual(logits.dims, [1, 6, 512]);
    await session.run({inputs: tokens(0, 4), states: [parts]});
    assert.equal(parts.length, 4);
    assert.ok(parts.capacity >= 4);
    const fork = parts.fork();
    const moved = session.importState(await parts.export());
    const last = Array.from(logits.data.subarray(5 * 512));
    for (const state of [parts, fork, moved]) {
        const step = await session.run({inputs: tokens(4, 6), states: [state], lastRows: 1});
        assert.deepEqual(step.logits.dims, [1, 1, 512]);
        step.logits.data.forEach((v, i) => assert.ok(Math.abs(v - last[i]) < 1e-3));
        assert.equal(state.length, 6);
    }
    parts.truncate(2);
    assert.equal(parts.length, 2);
    assert.equal(fork.length, 6);
    assert.throws(() => parts.truncate(3), fails('BAD_ARGUMENT', /holds 2 tokens/));
    session.dispose();
    assert.throws(() => fork.length, fails('BAD_STATE', /disposed/));
});

test('runs that are begun together wait for each other', async () => {
    const session = await model.createSession();
    const states = Array.from({length: 4}, () => session.createState());
    const all = await Promise.all(states.map(state => session.run({inputs: tokens(0, 5), states: [state]})));
    for (const {logits} of all) assert.deepEqual(logits.data, all[0].logits.data);
    session.dispose();
});

test('what is wrong with an input is said in a sentence', async () => {
    const session = await model.createSession();
    const run = (inputs, rest) => session.run({inputs, states: [session.createState()], ...rest});
    await assert.rejects(run({}), fails('BAD_INPUT', /'input_ids' is missing/));
    await assert.rejects(run({...tokens(0, 2), nothing: int64(1, 1, () => 0)}), fails('BAD_INPUT', /no input 'nothing'/));
    await assert.rejects(run({...tokens(0, 2), input_ids: {type: 'float', dims: [1, 2], data: new Float32Array(2)}}),
                         fails('BAD_INPUT', /input_ids/));
    await assert.rejects(run({...tokens(0, 2), input_ids: {type: 'int64', dims: [1, 2], data: new BigInt64Array(3)}}),
                         fails('BAD_INPUT', /24 bytes where int64 \[1, 2\] takes 16/));
    await assert.rejects(run({...tokens(0, 2), input_ids: int64(1, 2, () => 512)}), fails('OUT_OF_RANGE', /512/));
    await assert.rejects(run(tokens(0, 2), {outputs: ['none']}), fails('BAD_ARGUMENT', /no output 'none'/));
    await run(tokens(0, 2)); /* and the session goes on */
    session.dispose();
});

test('a run that is aborted leaves its states as they were', async () => {
    /* Bounds take many milliseconds: more than the engine works at a time. */
    const session = await model.createSession({activations: 'float', keepBounds: true}), state = session.createState();
    await session.run({inputs: tokens(0, 3), states: [state]});
    const controller = new AbortController();
    let looks = 0; /* at the signal: at the third the run is under way */
    controller.signal.throwIfAborted = function () {
        if (++looks === 3) controller.abort();
        AbortSignal.prototype.throwIfAborted.call(this);
    };
    await assert.rejects(session.run({inputs: tokens(3, 120), states: [state], signal: controller.signal}), {name: 'AbortError'});
    assert.equal(looks, 3);
    assert.equal(state.length, 3);
    await session.run({inputs: tokens(3, 5), states: [state]});
    assert.equal(state.length, 5);
    await assert.rejects(session.run({inputs: tokens(5, 6), states: [state], signal: AbortSignal.abort()}),
                         {name: 'AbortError'});
    session.dispose();
});

test('disposal takes what was made along, in any order, once', async () => {
    const own = await Engine.create({device: 'wasm'});
    const m = await own.loadModel(LLAMA), session = await m.createSession(), state = session.createState();
    own.dispose();
    own.dispose();
    state.dispose();
    assert.ok(m.isDisposed && session.isDisposed && state.isDisposed);
    assert.throws(() => own.loadModel(LLAMA), fails('BAD_STATE', /engine was disposed/));
    assert.throws(() => session.run({inputs: {}}), fails('BAD_STATE', /session was disposed/));
});

test('memory comes back', async () => {
    const own = await Engine.create({device: 'wasm'});
    let before = 0;
    for (let i = 0; i < 6; i++) {
        const m = await own.loadModel(LLAMA), session = await m.createSession();
        await session.run({inputs: tokens(0, 64), states: [session.createState()]});
        m.dispose();
        if (i === 2) before = own.memoryBytes;
    }
    assert.equal(own.memoryBytes, before);
    own.dispose();
});

test('steps and figures say what runs where', async () => {
    const session = await model.createSession({profile: true});
    await session.run({inputs: tokens(0, 3), states: [session.createState()]});
    const info = session.info(), steps = session.steps();
    assert.equal(steps.length, info.steps);
    assert.ok(info.weightBytes > 100000 && info.hasStates);
    const matmul = steps.find(step => step.op.includes('MatMulNBits'));
    assert.ok(matmul.runs === 1 && matmul.seconds > 0 && matmul.kernel);
    session.resetProfile();
    assert.equal(session.steps()[0].runs, 0);
    session.dispose();
});

test('broken files', async () => {
    const bytes = readFileSync(LLAMA);
    for (const [data, pattern] of [
        [bytes.subarray(0, bytes.length >> 1), /malformed|ends|beyond/], [new Uint8Array(0), /./],
        [Uint8Array.from({length: 1000}, (_, i) => i * 73), /./],
    ]) {
        await assert.rejects(engine.loadModel(data), e => fails(e.status, pattern)(e) && e.status !== 'OUT_OF_MEMORY');
    }
    await assert.rejects(engine.loadModel(bytes), fails('NOT_FOUND', /model\.onnx\.data.*was not given/));
    await assert.rejects(engine.loadModel('/nowhere/model.onnx'), fails('IO', /nowhere/));
    await assert.rejects(engine.loadModel(join(root, 'tests')), fails('IO', /tests/));
});

test('a device that does not exist, and one that is not there', async () => {
    await assert.rejects(Engine.create({device: 'tpu'}), fails('BAD_ARGUMENT', /no device 'tpu'/));
    await assert.rejects(Engine.create({device: 'wasm', wasm: new Uint8Array(8)}), fails('UNSUPPORTED', /binary/));
    await assert.rejects(Engine.create({device: 'wasm', wasm: '/nowhere.wasm'}), fails('IO', /nowhere/));
});

/* Deno has relaxed SIMD, Node not yet. */
for (const [file, relaxed] of [['dibit.wasm', false], ['dibit-relaxed.wasm', true]]) {
    test(`${file} says which of the two it is, whatever the other could do here`, async t => {
        const wasm = readFileSync(join(root, 'build/web/dist', file));
        if (!WebAssembly.validate(wasm)) return t.skip('there is no relaxed SIMD');
        for (const device of ['wasm', 'null']) {
            const own = await Engine.create({device, wasm});
            assert.equal(own.relaxed, relaxed);
            own.dispose();
        }
        const {binary} = await verify({device: 'wasm', scope: 'quick', wasm});
        assert.equal(binary, relaxed ? 'relaxed SIMD' : 'SIMD');
    });
}

test('a report names the runtime', async () => {
    const {runtime} = await verify({device: 'wasm', scope: 'quick'}), {deno, node} = process.versions;
    assert.ok(runtime.startsWith(deno ? `Deno ${deno}, ` : `Node ${node}, `), runtime);
});

test('a GPU that is lost: every call says so, and all can be disposed of', async () => {
    const device = fakeDevice(), own = await Engine.create({gpuDevice: device});
    assert.equal(own.device, 'webgpu');
    assert.equal(own.why, ''); /* it was given: there was no choice */
    const m = await own.loadModel(LLAMA), session = await m.createSession({noProof: true});
    const state = session.createState();
    await session.run({inputs: tokens(0, 3), states: [state]});
    device.lose('somebody pulled the plug');
    await assert.rejects(session.run({inputs: tokens(3, 4), states: [state]}), fails('DEVICE_LOST', /pulled the plug/));
    await assert.rejects(session.run({inputs: tokens(3, 4), states: [state]}), fails('DEVICE_LOST', /pulled the plug/));
    own.dispose();
    assert.ok(device.buffers.filter(b => b.usage !== 9).every(b => b.destroyed));
});

for (const [name, loss] of [['AbortError', true], ['OperationError', true], ['OperationError', false]]) {
    test(`a read that fails with an ${name}${loss ? ', before its loss is told,' : ''} is no answer`, async () => {
        const device = fakeDevice(), own = await Engine.create({gpuDevice: device});
        const m = await own.loadModel(LLAMA), session = await m.createSession({noProof: true});
        const {createBuffer} = device;
        device.createBuffer = desc => Object.assign(createBuffer(desc), {
            mapAsync: async () => {
                if (loss) setTimeout(() => device.lose('a crash'), 20);
                throw new DOMException('no bytes', name);
            },
        });
        await assert.rejects(session.run({inputs: tokens(0, 3), states: [session.createState()]}),
                             loss ? fails('DEVICE_LOST', /a crash/) : fails('BAD_ARGUMENT', /no bytes/));
        own.dispose();
    });
}

test('after a loss the CPU takes over where that is wanted', async () => {
    const device = fakeDevice(), own = await Engine.create({gpuDevice: device});
    const m = await own.loadModel(LLAMA), session = await m.createSession({noProof: true, cpuFallback: true});
    const state = session.createState();
    device.lose('a reset');
    let error;
    await session.run({inputs: tokens(0, 3), states: [state]}).catch(e => void (error = e));
    assert.ok(session.mayLeave(error), `${error}`);
    await session.leaveDevice(error);
    assert.match(session.why, /CPU took over.*a reset/);
    assert.ok(state.isLost);
    state.truncate(0);
    const {logits} = await session.run({inputs: tokens(0, 3), states: [state]});
    const cpu = await model.createSession();
    const expected = await cpu.run({inputs: tokens(0, 3), states: [cpu.createState()]});
    assert.deepEqual(logits.data, expected.logits.data);
    own.dispose();
    cpu.dispose();
});

test('errors that a GPU finds out later are answered by the next call', async () => {
    globalThis.GPUOutOfMemoryError ??= class {
        constructor(message) {
            this.message = message;
        }
    };
    const device = fakeDevice(), own = await Engine.create({gpuDevice: device});
    const m = await own.loadModel(LLAMA), session = await m.createSession({noProof: true});
    const event = new Event('uncapturederror', {cancelable: true});
    device.dispatchEvent(Object.assign(event, {error: new GPUOutOfMemoryError('no room')}));
    assert.ok(event.defaultPrevented);
    const run = async () => session.run({inputs: tokens(0, 3), states: [session.createState()]});
    await assert.rejects(run(), fails('OUT_OF_MEMORY', /no room/));
    await run();
    own.dispose();
});
