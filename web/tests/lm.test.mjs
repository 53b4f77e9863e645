// load(): the shipped model in this thread, from its folder, a server and File objects.
import assert from 'node:assert/strict';
import {File} from 'node:buffer';
import {readFileSync, readdirSync, statSync} from 'node:fs';
import {createServer} from 'node:http';
import {join} from 'node:path';
import test, {after} from 'node:test';
import {pathToFileURL} from 'node:url';

import {built, cases, model} from './support.mjs';

const {load} = await import(pathToFileURL(join(built, 'node.js')));

const QUESTION = [{role: 'user', content: 'Why is the sky blue?'}];
/* dibit run MODEL -p "Why is the sky blue?" --greedy: the beginning. */
const ANSWER = [504, 6376, 4461, 314, 253, 4959];

const stages = [];
const lm = await load(model, {device: 'wasm', onProgress: p => stages.push(p.stage)});
after(() => lm.dispose());

test('the model is described, and its loading told', () => {
    assert.deepEqual([...new Set(stages)], ['tokenizer', 'model', 'prepare', 'ready']);
    assert.equal(lm.model.type, 'llama');
    assert.equal(lm.model.contextLength, 8192);
    assert.ok(lm.model.chat && lm.model.generates);
});

test('an answer is the native one, and the next turn feeds what is new', async () => {
    const first = lm.chat(QUESTION, {maxTokens: ANSWER.length});
    const pieces = [];
    for await (const piece of first) pieces.push(piece);
    assert.deepEqual(first.info.tokens, ANSWER);
    assert.equal(first.info.finish, 'length');
    assert.equal(first.info.cachedTokens, 0);
    assert.ok(first.info.firstTokenMs > 0);
    assert.ok(pieces.length > 1);
    const more = [...QUESTION, {role: 'assistant', content: pieces.join('')}, {role: 'user', content: 'Why?'}];
    const second = lm.chat(more, {maxTokens: 2}), text = await second.text();
    assert.ok(second.info.cachedTokens >= first.info.promptTokens + ANSWER.length - 1, `${second.info.cachedTokens}`);
    /* The same without anything kept: another conversation was in between. */
    await lm.complete('Once', {maxTokens: 1}).text();
    const again = lm.chat(more, {maxTokens: 2});
    assert.equal(await again.text(), text);
    assert.ok(again.info.cachedTokens < 3);
});

test('drawn texts follow their seed', async () => {
    const draw = seed => lm.complete('The', {maxTokens: 4, temperature: 1.5, topK: 40, seed}).text();
    assert.equal(await draw(7), await draw(7));
    assert.notEqual(await draw(7), await draw(8));
});

test('a generation ends when its caller leaves, or says so; others wait for their turn', async () => {
    const left = lm.chat(QUESTION, {maxTokens: 500});
    for await (const piece of left) {
        assert.ok(piece);
        break;
    }
    const controller = new AbortController(), stopped = lm.chat(QUESTION, {maxTokens: 500, signal: controller.signal});
    await assert.rejects(async () => {
        for await (const piece of stopped) controller.abort(new Error(`stopped at ${piece.length}`));
    }, /stopped at/);
    const [a, b] = await Promise.all([lm.complete('One', {maxTokens: 2}).text(), lm.complete('One', {maxTokens: 2}).text()]);
    assert.equal(a, b);
});

test('explain() tells device, kernels and memory', async () => {
    const e = await lm.explain();
    assert.match(e.device, /^cpu/);
    const products = e.kernels.filter(k => k.kernel.includes('_b2_'));
    assert.deepEqual(products.map(k => [k.op, k.steps]), [['com.microsoft.MatMulNBits', 90], ['dibit.FusedMatMulNBits', 30]]);
    assert.equal(e.kernels.reduce((n, k) => n + k.steps, 0), e.steps);
    const {weights, plan, wasm} = e.memory, file = statSync(join(model, 'model.onnx.data')).size;
    assert.ok(Math.abs(weights / file - 1) < 0.01, `${weights}`); /* the table that two nodes read is there once */
    assert.ok(plan < 10e6 && wasm > weights && wasm < weights + 25e6, `${plan}, ${wasm}`);
});

test('wrong use is one sentence', async () => {
    await assert.rejects(load(join(model, 'none')), /no model\.onnx|tokenizer\.json/);
    await assert.rejects(load(model, {model: 'other.onnx'}), /other\.onnx/);
    await assert.rejects(load(model, {device: 'tpu'}), /tpu/);
});

test('from a server, and from files', async () => {
    const server = createServer((request, response) => {
        const path = join(model, decodeURIComponent(request.url));
        const size = statSync(path, {throwIfNoEntry: false})?.isFile() && statSync(path).size;
        if (!size) return void response.writeHead(404).end();
        const [, from = 0, to = size - 1] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
        const end = Math.min(Number(to), size - 1);
        response.writeHead(request.headers.range ? 206 : 200, {
            'content-length': end - from + 1, 'content-range': `bytes ${from}-${end}/${size}`,
        });
        response.end(request.method === 'HEAD' ? undefined : readFileSync(path).subarray(Number(from), end + 1));
    });
    await new Promise(resolve => server.listen(0, resolve));
    const files = readdirSync(model).filter(f => statSync(join(model, f)).isFile())
        .map(f => new File([readFileSync(join(model, f))], f));
    for (const from of [`http://127.0.0.1:${server.address().port}/`, files]) {
        const other = await load(from, {device: 'wasm', cache: false});
        const answer = other.chat(QUESTION, {maxTokens: 2});
        await answer.text();
        assert.deepEqual(answer.info.tokens, ANSWER.slice(0, 2));
        await other.dispose();
        await assert.rejects(other.chat(QUESTION).text(), /disposed/);
    }
    server.closeAllConnections();
    server.close();
});
