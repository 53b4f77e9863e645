// onnxruntime's API: what its users pass and get, on the oracle's small models.
import assert from 'node:assert/strict';
import {readFileSync, readdirSync} from 'node:fs';
import {createServer} from 'node:http';
import {join} from 'node:path';
import test from 'node:test';
import {pathToFileURL} from 'node:url';
import v8 from 'node:v8';
import vm from 'node:vm';

import {built, cases, distance, readTensor} from './support.mjs';

const ort = await import(pathToFileURL(join(built, 'ort.js')));
const {InferenceSession, Tensor} = ort;

const LLAMA = join(cases, 'llama.q2/model.onnx');
/* ONNX Runtime rounds activations to int8 in other places: an element may be so far off, as part of the largest. */
const NEAR = 0.03;

const int64 = (values, dims) => new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
const pasts = session => session.inputNames.filter(n => n.startsWith('past'));
const present = name => name.replace('past_key_values', 'present');

function feedsOf(folder) {
    return Object.fromEntries(readdirSync(folder).filter(f => f.startsWith('input_')).map(f => {
        const t = readTensor(join(folder, f));
        return [t.name, new Tensor(t.type, t.data, t.dims)];
    }));
}

function wantedOf(folder) {
    return readdirSync(folder).filter(f => f.startsWith('output_')).map(f => readTensor(join(folder, f)));
}

/* Tokens after a past: {name: tensor} of present.*, or none. */
function tokens(session, ids, past, batch = 1) {
    const before = past ? past[present(pasts(session)[0])].dims[2] : 0, n = ids.length / batch;
    const feeds = {
        input_ids: int64(ids, [batch, n]),
        attention_mask: int64(Array(batch * (before + n)).fill(1), [batch, before + n]),
    };
    for (const name of pasts(session)) {
        feeds[name] = past?.[present(name)] ?? new Tensor('float32', new Float32Array(0), [batch, 2, 0, 16]);
    }
    return feeds;
}

async function copied(outputs) {
    const copies = {};
    for (const [name, t] of Object.entries(outputs)) copies[name] = new Tensor(t.type, (await t.getData()).slice(), t.dims);
    return copies;
}

for (const name of ['llama.q2', 'gemma3.q2', 'lfm2.q2', 'mistral_swa.q2', 'bert.q2', 'llama.int4webgpu']) {
    test(`${name} answers as onnxruntime does`, async () => {
        const folder = join(cases, name), session = await InferenceSession.create(join(folder, 'model.onnx'));
        const sets = readdirSync(folder).filter(f => f.startsWith('test_data_set_'));
        assert.ok(sets.length > 0);
        for (const set of sets) {
            const outputs = await session.run(feedsOf(join(folder, set)));
            for (const want of wantedOf(join(folder, set))) {
                const got = outputs[want.name];
                assert.ok(got instanceof Tensor);
                assert.equal(got.type, want.type);
                assert.deepEqual([...got.dims], want.dims, `${set} ${want.name}`);
                const far = distance({type: got.type, data: await got.getData()}, want);
                assert.ok(far < NEAR, `${set} ${want.name}: ${far}`);
            }
        }
        await session.release();
    });
}

test('a past that is fed back goes on in place; an older one is copied', async () => {
    const session = await InferenceSession.create(LLAMA);
    const first = await session.run(tokens(session, [3, 141, 59, 26, 5]));
    const own = await copied(first);
    const second = await session.run(tokens(session, [35, 89], first));
    const third = await session.run(tokens(session, [79], second));
    assert.deepEqual([...third['present.0.key'].dims], [1, 2, 8, 16]);
    assert.equal(third['present.0.key'].location, 'cpu');
    /* The same from copies, which no state stands behind. */
    const secondOwn = await copied(await session.run(tokens(session, [35, 89], own)));
    const thirdOwn = await session.run(tokens(session, [79], secondOwn));
    for (const name of session.outputNames) {
        assert.ok(distance(third[name], thirdOwn[name]) < 1e-5, name);
    }
    /* Another continuation of the first, which is two runs old by now. */
    const other = await session.run(tokens(session, [7, 8], first)), otherOwn = await session.run(tokens(session, [7, 8], own));
    for (const name of session.outputNames) assert.ok(distance(other[name], otherOwn[name]) < 1e-5, name);
    assert.ok(distance(other.logits, second.logits) > 1e-3);
    /* What older handles show has not changed. */
    assert.ok(distance(first['present.1.value'], own['present.1.value']) < 1e-6);
    assert.ok(distance(second['present.1.value'], secondOwn['present.1.value']) < 1e-5);
    await session.release();
});

test('two rows go on together', async () => {
    const session = await InferenceSession.create(LLAMA);
    const both = await session.run(tokens(session, [3, 141, 59, 26, 5, 35], undefined, 2));
    assert.deepEqual([...both['present.0.key'].dims], [2, 2, 3, 16]);
    const next = await session.run(tokens(session, [9, 10], both, 2));
    for (const [row, ids, then] of [[0, [3, 141, 59], 9], [1, [26, 5, 35], 10]]) {
        const alone = await session.run(tokens(session, [then], await session.run(tokens(session, ids))));
        const n = alone.logits.size;
        assert.ok(distance({type: 'float32', data: next.logits.data.slice(row * n, (row + 1) * n)}, alone.logits) < 1e-5);
        const k = alone['present.1.key'].size;
        assert.ok(distance({type: 'float32', data: next['present.1.key'].data.slice(row * k, (row + 1) * k)},
                           alone['present.1.key']) < 1e-5);
    }
    await session.release();
});

test('a disposed past cannot be fed', async () => {
    const session = await InferenceSession.create(LLAMA);
    const first = await session.run(tokens(session, [3, 141]));
    const feeds = tokens(session, [59], first);
    for (const name of pasts(session)) first[present(name)].dispose();
    assert.equal(first['present.0.key'].location, 'none');
    await assert.rejects(session.run(feeds), /disposed/);
    await session.release();
});

test('states end with the handles on them', async () => {
    v8.setFlagsFromString('--expose-gc');
    const gc = vm.runInNewContext('gc');
    const session = await InferenceSession.create(LLAMA);
    const states = () => session.handler.session.children.size;
    let kept = await session.run(tokens(session, [3, 141]));
    for (let i = 0; i < 3; i++) kept = await session.run(tokens(session, [i], kept));
    assert.equal(states(), 1);
    for (const name of pasts(session)) kept[present(name)].dispose();
    kept = undefined;
    for (let i = 0; i < 20 && states() > 0; i++) {
        await new Promise(resolve => setTimeout(resolve, 10));
        gc();
    }
    assert.equal(states(), 0);
    await session.release();
});

test('metadata are in onnxruntime\'s words', async () => {
    const session = await InferenceSession.create(LLAMA, {freeDimensionOverrides: {kv_cache_dim: 16}});
    assert.deepEqual(session.inputMetadata[0],
                     {name: 'input_ids', isTensor: true, type: 'int64', shape: ['batch_size', 'sequence_length']});
    assert.deepEqual(session.inputMetadata[2],
                     {name: 'past_key_values.0.key', isTensor: true, type: 'float32',
                      shape: ['batch_size', 2, 'past_sequence_length', 16]});
    assert.equal(session.outputMetadata[0].name, 'logits');
    session.config = {}; /* users hang things on it */
    assert.equal(session.then, undefined);
    await session.release();
});

test('fetches: names, and tensors to be filled', async () => {
    const session = await InferenceSession.create(LLAMA), feeds = tokens(session, [3, 141]);
    const named = await session.run(feeds, ['logits']);
    assert.deepEqual(Object.keys(named), ['logits']);
    const own = new Tensor('float32', new Float32Array(2 * 512), [1, 2, 512]);
    const filled = await session.run(feeds, {logits: own});
    assert.equal(filled.logits, own);
    assert.ok(distance(own, named.logits) < 1e-6);
    await assert.rejects(session.run(feeds, {logits: new Tensor('float32', new Float32Array(4), [4])}), /logits/);
    await session.release();
});

test('feeds of another copy of onnxruntime-common will do; wrong ones are named', async () => {
    const session = await InferenceSession.create(LLAMA), feeds = tokens(session, [3, 141]);
    const foreign = Object.fromEntries(Object.entries(feeds).map(
        ([name, t]) => [name, {type: t.type, dims: t.dims, data: t.data, location: 'cpu'}]));
    assert.ok(distance((await session.run(foreign)).logits, (await session.run(feeds)).logits) < 1e-6);
    await assert.rejects(session.run({...feeds, input_ids: new Tensor('int32', [1, 2], [1, 2])}), /input_ids.*int32/);
    await assert.rejects(session.run({input_ids: feeds.input_ids}), /attention_mask/);
    await session.release();
});

test('a run is terminated', async () => {
    const session = await InferenceSession.create(LLAMA), feeds = tokens(session, Array(400).fill(3));
    const options = {terminate: false};
    const under = session.run(feeds, options);
    options.terminate = true;
    await assert.rejects(under, /terminated/);
    assert.equal((await session.run(tokens(session, [3]))).logits.dims[1], 1);
    await session.release();
});

test('models and external data as bytes, Blobs, URLs and paths', async () => {
    const bytes = readFileSync(LLAMA), data = readFileSync(`${LLAMA}.data`), name = 'model.onnx.data';
    const server = createServer((request, response) => response.end(request.url.endsWith('.data') ? data : bytes));
    await new Promise(resolve => server.listen(0, resolve));
    const url = `http://127.0.0.1:${server.address().port}/model.onnx`;
    const reference = await InferenceSession.create(LLAMA), want = await reference.run(tokens(reference, [3, 4]));
    for (const [model, externalData] of [
        [bytes, [{path: name, data}]], [bytes, [{path: `./${name}`, data: new Blob([data])}]],
        [bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length), [{path: name, data: `${url}.data`}]],
        [bytes, [`${LLAMA}.data`]], [url, undefined], [LLAMA, undefined],
    ]) {
        const session = await InferenceSession.create(model, {externalData});
        assert.ok(distance((await session.run(tokens(session, [3, 4]))).logits, want.logits) < 1e-6);
        await session.release();
    }
    server.close();
    await reference.release();
    await assert.rejects(InferenceSession.create(bytes), /model\.onnx\.data/);
    await assert.rejects(InferenceSession.create('/there/is/none.onnx'), /none\.onnx/);
    await assert.rejects(InferenceSession.create(new Uint8Array([1, 2, 3])));
});

test('execution providers by name and as objects', async () => {
    for (const executionProviders of [['wasm'], ['cpu'], [{name: 'wasm'}], ['webnn', 'wasm']]) {
        const session = await InferenceSession.create(LLAMA, {executionProviders, logSeverityLevel: 3});
        await session.release();
    }
    await assert.rejects(InferenceSession.create(LLAMA, {executionProviders: ['cuda']}), /cuda/);
});

/* As transformers.js has them in its src/ops/registry.js: ModelProtos of one node, inputs without a shape. */
function oneNode(op, inputs, outputs, opset) {
    const field = (number, ...parts) => {
        const content = Buffer.concat(parts.map(p => typeof p === 'string' ? Buffer.from(p) : Buffer.from(p)));
        return Buffer.concat([Buffer.from([number << 3 | 2, content.length]), content]);
    };
    const value = ([name, type, rank]) => Buffer.concat([field(1, name), field(2, field(1, [8, type], rank === undefined
        ? [] : field(2, ...Array(rank).fill(field(1, field(2, 'n'))))))]);
    const node = Buffer.concat([...inputs.map(i => field(1, i[0])), ...outputs.map(o => field(2, o[0])), field(4, op)]);
    const graph = Buffer.concat([field(1, node), field(2, 'g'), ...inputs.map(i => field(11, value(i))),
                                 ...outputs.map(o => field(12, value(o)))]);
    return new Uint8Array(Buffer.concat([Buffer.from([8, 8]), field(7, graph), field(8, [16, opset])]));
}

test('inputs of any rank, as the ops that transformers.js builds', async () => {
    const topK = await InferenceSession.create(oneNode('TopK', [['x', 1], ['k', 7, 1]], [['v', 1], ['i', 7]], 21));
    for (const dims of [[4], [1, 4], [4]]) {
        const {v, i} = await topK.run({x: new Tensor('float32', [1, 5, 3, 2], dims), k: int64([2], [1])});
        assert.deepEqual([[...v.data], [...i.data], v.dims.length], [[5, 3], [1n, 2n], dims.length]);
    }
    const matMul = await InferenceSession.create(oneNode('MatMul', [['a', 1], ['b', 1]], [['c', 1]], 20));
    const square = new Tensor('float32', [1, 2, 3, 4], [2, 2]);
    assert.deepEqual([...(await matMul.run({a: square, b: square})).c.data], [7, 10, 15, 22]);
    await assert.rejects(InferenceSession.create(oneNode('STFT', [['s', 1, 3]], [['o', 1]], 17)), /STFT/);
});
