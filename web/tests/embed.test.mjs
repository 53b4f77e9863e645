// embed(): a text's vector is the model's rows, pooled; on a small encoder with a small tokenizer.
import assert from 'node:assert/strict';
import {mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import test, {after} from 'node:test';
import {pathToFileURL} from 'node:url';

import {built, distance, smallFolder, source} from './support.mjs';

const {load, InferenceSession, Tensor} = await import(pathToFileURL(join(built, 'node.js')));
const {Text} = await source('text');

const folder = smallFolder('bert.q2'), tokenizer = join(folder, 'tokenizer.json');
const lm = await load(folder, {device: 'wasm'});
after(() => lm.dispose());

const TEXTS = ['the first text', 'another, that is longer than the first'];
const ids = TEXTS.map(t => new Text({tokenizer: JSON.parse(readFileSync(tokenizer, 'utf8')), config: {}}).encode(t));

async function rows(list) {
    const session = await InferenceSession.create(join(folder, 'model.onnx')), of = f => new Tensor(
        'int64', BigInt64Array.from(list, f), [1, list.length]);
    const {last_hidden_state} = await session.run({
        input_ids: of(BigInt), attention_mask: of(() => 1n), token_type_ids: of(() => 0n),
    });
    await session.release();
    return list.map((_, i) => last_hidden_state.data.slice(64 * i, 64 * i + 64));
}

const unit = v => v.map(x => x / Math.hypot(...v)), vector = data => ({type: 'float32', data});

test('the mean of rows, scaled to length 1', async () => {
    const got = await lm.embed(TEXTS);
    for (const [i, list] of ids.entries()) {
        const all = await rows(list), mean = all[0].map((_, k) => all.reduce((n, r) => n + r[k], 0) / all.length);
        assert.equal(got[i].length, 64);
        assert.ok(distance(vector(got[i]), vector(unit(mean))) < 1e-5);
        assert.ok(Math.abs(Math.hypot(...got[i]) - 1) < 1e-6);
    }
});

test('the first row, the last row, and as the folder says', async () => {
    const all = await rows(ids[0]), get = async (model, options) => (await model.embed([TEXTS[0]], options))[0];
    assert.ok(distance(vector(await get(lm, {pooling: 'cls', normalize: false})), vector(all[0])) < 1e-6);
    assert.ok(distance(vector(await get(lm, {pooling: 'last', normalize: false})), vector(all.at(-1))) < 1e-6);
    mkdirSync(join(folder, '1_Pooling'), {recursive: true});
    writeFileSync(join(folder, '1_Pooling/config.json'), JSON.stringify({pooling_mode_cls_token: true}));
    const other = await load(folder, {device: 'wasm'});
    assert.ok(distance(vector(await get(other)), vector(unit(all[0]))) < 1e-5);
    await other.dispose();
    writeFileSync(join(folder, '1_Pooling/config.json'), '{}');
});

test('an encoder does not chat', async () => {
    assert.equal(lm.model.generates, false);
    await assert.rejects(lm.complete('x').text(), /embed/);
});
