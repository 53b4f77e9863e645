// onnxruntime's API on WebGPU: Node's, through the npm package webgpu; run.mjs finds a GPU for it.
import assert from 'node:assert/strict';
import {join} from 'node:path';
import test from 'node:test';
import {pathToFileURL} from 'node:url';

import {built, cases, distance, source} from './support.mjs';

const {InferenceSession, Tensor, env} = await import(pathToFileURL(join(built, 'ort.js')));
const {requestDevice} = await source('gpu');
const found = await requestDevice();
const skip = typeof found === 'string' && found;
const LLAMA = join(cases, 'llama.q2/model.onnx'), PASTS = [0, 1].flatMap(i => [`${i}.key`, `${i}.value`]);

function feeds(ids, past) {
    const before = past ? past['present.0.key'].dims[2] : 0, n = ids.length;
    return {
        input_ids: new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, n]),
        attention_mask: new Tensor('int64', new BigInt64Array(before + n).fill(1n), [1, before + n]),
        ...Object.fromEntries(PASTS.map(p => [`past_key_values.${p}`, past?.[`present.${p}`] ??
            new Tensor('float32', new Float32Array(0), [1, 2, 0, 16])])),
    };
}

/* Compiling shaders once more takes SwiftShader half a minute. */
const onlyFull = process.env.DIBIT_FULL !== '1' && 'only with DIBIT_FULL=1';

test('the past stays on the GPU where that is asked for', {skip}, async () => {
    const preferredOutputLocation = Object.fromEntries(PASTS.map(p => [`present.${p}`, 'gpu-buffer']));
    const session = await InferenceSession.create(LLAMA, {executionProviders: ['webgpu'], preferredOutputLocation});
    const onCpu = await InferenceSession.create(LLAMA, {executionProviders: ['wasm']});
    let last, cpu;
    for (const ids of [[3, 141, 59], [26], [5]]) {
        const before = last;
        last = await session.run(feeds(ids, last));
        cpu = await onCpu.run(feeds(ids, cpu));
        assert.equal(last.logits.location, 'cpu');
        assert.equal(last['present.0.key'].location, 'gpu-buffer');
        assert.throws(() => last['present.0.key'].data, /not on CPU/);
        assert.ok(distance(last.logits, cpu.logits) < 0.03);
        for (const p of PASTS) before?.[`present.${p}`].dispose();
    }
    const key = last['present.1.key'], data = await key.getData();
    assert.equal(key.location, 'cpu');
    assert.ok(distance({type: 'float32', data}, cpu['present.1.key']) < 0.03);
    const next = await session.run(feeds([35], last)); /* its data were read, it is fed all the same */
    assert.ok(distance(next.logits, (await onCpu.run(feeds([35], cpu))).logits) < 0.03);
    await session.release();
    await onCpu.release();
});

test('else its data are there when the run resolves', {skip: skip || onlyFull}, async () => {
    const session = await InferenceSession.create(LLAMA, {executionProviders: ['webgpu']});
    const first = await session.run(feeds([3, 141])), key = first['present.0.key'];
    assert.equal(key.location, 'cpu');
    assert.equal(key.data.length, 2 * 2 * 16);
    assert.equal((await session.run(feeds([59], first)))['present.0.key'].dims[2], 3);
    await session.release();
});

test('sessions share a device, which the program may bring', {skip: skip || onlyFull}, async () => {
    const shared = await env.webgpu.device;
    const {device} = await requestDevice();
    for (const [executionProviders, want] of [[['webgpu'], shared], [[{name: 'webgpu', device}], device]]) {
        const session = await InferenceSession.create(LLAMA, {executionProviders});
        assert.equal(session.handler.engine.gpu.device, want);
        await session.run(feeds([3]));
        await session.release();
    }
    device.destroy();
    await assert.rejects(async () => {
        const session = await InferenceSession.create(LLAMA, {executionProviders: [{name: 'webgpu', device}]});
        await session.run(feeds([3]));
    });
});
