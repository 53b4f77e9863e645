// transformers.js from npm, unpatched, on Dibit by npm's overrides; on the CPU. Installs into build/transformers once.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {cpSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import test, {after} from 'node:test';
import {pathToFileURL} from 'node:url';

import {cases, distance, model, readTensor, root} from './support.mjs';

const folder = join(root, 'build/transformers'), models = join(folder, 'models');
const installed = install();
const skip = !installed && 'transformers.js is not installed';
const {layOut} = await import(pathToFileURL(join(root, 'tools/transformers_layout.mjs')));

function install() {
    const packages = join(folder, 'node_modules');
    if (!existsSync(join(folder, 'complete'))) {
        if (process.env.DIBIT_NO_INSTALL === '1') return false;
        rmSync(folder, {recursive: true, force: true});
        mkdirSync(folder, {recursive: true});
        cpSync(join(root, 'build/web/package.json'), join(folder, 'dibit/package.json'));
        writeFileSync(join(folder, 'package.json'), JSON.stringify({
            private: true, type: 'module',
            dependencies: {'@huggingface/transformers': '4.3.1', dibit: 'file:./dibit'},
            overrides: {'onnxruntime-node': '$dibit', 'onnxruntime-web': '$dibit'},
        }));
        execFileSync('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--install-links', '--loglevel=error'],
                     {cwd: folder, stdio: 'inherit'});
        writeFileSync(join(folder, 'complete'), '');
    }
    for (const name of ['dibit', 'onnxruntime-node', 'onnxruntime-web']) { /* what is built now */
        rmSync(join(packages, name), {recursive: true, force: true});
        symlinkSync(join(root, 'build/web'), join(packages, name));
    }
    return true;
}

const transformers = installed &&
    await import(pathToFileURL(join(folder, 'node_modules/@huggingface/transformers/dist/transformers.node.mjs')));
let generator;
if (installed) {
    layOut(model, join(models, 'smollm2'));
    Object.assign(transformers.env, {localModelPath: `${models}/`, allowRemoteModels: false});
    generator = await transformers.pipeline('text-generation', 'smollm2', {device: 'cpu', dtype: 'q2'});
}
after(() => generator?.dispose());

const QUESTION = [{role: 'user', content: 'Why is the sky blue?'}];
/* dibit run MODEL -p "Why is the sky blue?" --greedy: the beginning. */
const ANSWER = 'The sky blue is a fundamental';

test('it runs on this package', {skip}, () => {
    assert.equal(transformers.env.backends.onnx.versions.web, undefined);
    const {version} = JSON.parse(execFileSync(process.execPath, [
        '-p', 'JSON.stringify(require("onnxruntime-node/package.json"))',
    ], {cwd: folder}));
    assert.equal(version, '0.1.0');
});

test('greedy text is the native one', {skip}, async () => {
    const [{generated_text}] = await generator(QUESTION, {max_new_tokens: 6, do_sample: false});
    assert.equal(generated_text.at(-1).content, ANSWER);
});

test('drawn text', {skip}, async () => {
    const [{generated_text}] = await generator('The', {max_new_tokens: 3, do_sample: true, temperature: 0.8, top_k: 5});
    assert.ok(generated_text.length > 'The'.length);
});

test('a batch of two', {skip}, async () => {
    const prompts = ['The cat sat on the', 'One two three four five']; /* of as many tokens */
    const options = {max_new_tokens: 3, do_sample: false};
    const together = await generator(prompts, options);
    for (const [i, prompt] of prompts.entries()) {
        assert.deepEqual(together[i], await generator(prompt, options));
    }
});

test('turns with the cache of the one before', {skip}, async () => {
    const {tokenizer, model: lm} = generator, generate = (inputs, more) => lm.generate({
        ...inputs, max_new_tokens: 3, do_sample: false, return_dict_in_generate: true, ...more,
    });
    const first = tokenizer('Once upon a time');
    const one = await generate(first);
    const text = tokenizer.batch_decode(one.sequences, {skip_special_tokens: true})[0];
    const second = tokenizer(`${text} and then`);
    const kept = await generate(second, {past_key_values: one.past_key_values}), fresh = await generate(second);
    assert.deepEqual(kept.sequences.tolist(), fresh.sequences.tolist());
    /* The first cache, which is older by now, goes on another way. */
    const third = tokenizer(`${text} but never`);
    assert.deepEqual((await generate(third, {past_key_values: one.past_key_values})).sequences.tolist(),
                     (await generate(third)).sequences.tolist());
});

test('features of an encoder', {skip}, async () => {
    const bert = join(models, 'bert'), set = join(cases, 'bert.q2/test_data_set_0');
    mkdirSync(join(bert, 'onnx'), {recursive: true});
    writeFileSync(join(bert, 'config.json'), JSON.stringify({model_type: 'bert', architectures: ['BertModel']}));
    for (const file of ['model.onnx', 'model.onnx.data']) {
        cpSync(join(cases, 'bert.q2', file), join(bert, 'onnx', file.replace('model.onnx', file === 'model.onnx' ? 'model_q2.onnx'
            : 'model.onnx')));
    }
    const encoder = await transformers.AutoModel.from_pretrained('bert', {device: 'cpu', dtype: 'q2'});
    const inputs = Object.fromEntries([0, 1, 2].map(i => readTensor(join(set, `input_${i}.pb`))).map(
        t => [t.name, new transformers.Tensor(t.type, t.data, t.dims)]));
    const {last_hidden_state: got} = await encoder(inputs), want = readTensor(join(set, 'output_0.pb'));
    assert.deepEqual(got.dims, want.dims);
    assert.ok(distance({type: got.type, data: got.data}, want) < 0.03);
    assert.equal(transformers.mean_pooling(got, inputs.attention_mask).dims.length, 2);
    await encoder.dispose();
});
