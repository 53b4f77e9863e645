// transformers.js from npm, unpatched, on Dibit: in Node by npm's overrides, in browsers by an import map. Installs into
// build/transformers once.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {cpSync, existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';
import test, {after} from 'node:test';
import {pathToFileURL} from 'node:url';

import {chromiumPath, firefoxPath, openChromium, openFirefox} from './browsers.mjs';
import {makeTinyModel} from './page.mjs';
import {link} from './site.mjs';
import {built, cases, distance, model, readTensor, root, smallFolder} from './support.mjs';
import {checks} from './transformers_checks.mjs';

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

// ---- On every device, with small models ------------------------------------------------------------

const TEXTS = ['the first of all things', 'why not'], TOKENS = 8;

/* Writes both models down, and gives what load() answers on the CPU. */
async function prepare() {
    const write = (folder, name, value) => writeFileSync(join(folder, name), JSON.stringify(value));
    const encoder = smallFolder('bert.q2'), tiny = makeTinyModel(), tokens = {pad_token: '<|endoftext|>'};
    write(encoder, 'config.json', {model_type: 'bert', architectures: ['BertModel']});
    write(encoder, 'tokenizer_config.json', tokens);
    layOut(encoder, join(models, 'encoder'));
    layOut(tiny, join(models, 'tiny'));
    write(join(models, 'tiny'), 'tokenizer_config.json', {...tokens, padding_side: 'left'});
    write(join(models, 'tiny'), 'config.json', {
        model_type: 'llama', architectures: ['LlamaForCausalLM'], hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4,
        num_key_value_heads: 2, head_dim: 16, vocab_size: 512, eos_token_id: 372, pad_token_id: 0,
    });
    const {load} = await import(pathToFileURL(join(built, 'node.js')));
    const lm = await load(tiny, {device: 'wasm'}), answers = [];
    for (const text of TEXTS) {
        const generation = lm.complete(text, {maxTokens: TOKENS, temperature: 0});
        await generation.text();
        answers.push(generation.info.tokens);
    }
    await lm.dispose();
    assert.ok(answers.every(answer => answer.length > 0)); /* none begins with a stop token */
    const embedder = await load(encoder, {device: 'wasm'}), features = await embedder.embed(TEXTS);
    await embedder.dispose();
    return {answers, features};
}

const expected = installed && await prepare(), options = {texts: TEXTS, maxTokens: TOKENS};
let together; /* the batch's, on the device that was first */

function judge(got, where) {
    for (const [i, answer] of expected.answers.entries()) assert.deepEqual(got.alone[i].slice(-answer.length), answer);
    assert.deepEqual(got.together[0], got.alone[0]); /* the longer one, which is not padded */
    assert.deepEqual(got.together, together ??= got.together);
    assert.deepEqual(got.drawn, got.alone[0]); /* from one candidate */
    assert.ok(got.text.startsWith(TEXTS[0]) && got.text.length > TEXTS[0].length);
    for (const {kept, fresh} of got.turns) assert.deepEqual(kept, fresh);
    assert.equal(got.turns.length, 2);
    for (const [i, vector] of expected.features.entries()) {
        assert.ok(distance({type: 'float32', data: got.features[i]}, {type: 'float32', data: vector}) < 0.03);
    }
    assert.deepEqual(got.rows.map(Number), [1, got.rows[1], 64]);
    const {topk, slice, matmul, resize, dft} = got.helpers;
    assert.deepEqual([topk, slice, matmul], [[[5, 3], [1, 2]], [[2, 3], [5, 6]], [[7, 10], [15, 22]]]);
    assert.equal(resize.length, 3);
    for (const text of resize) assert.match(text, /operator Resize is not supported/);
    /* In pages the library makes sessions one after the other, and after one that failed gives its error for all. */
    assert.match(dft, where === 'Node' ? /operator DFT is not supported/ : /operator Resize is not supported/);
}

const full = process.env.DIBIT_FULL === '1', onlyFull = !full && 'only with DIBIT_FULL=1: it compiles slowly';
const inNode = device => checks(transformers, {...options, device});

async function inPage(open, device) {
    link(models, 'models');
    link(join(root, 'web/tests/transformers_checks.mjs'), 'transformers_checks.mjs');
    const opened = await open();
    try {
        return await opened.evaluate(async options => {
            const transformers = await import('@huggingface/transformers'), {checks} = await import('/transformers_checks.mjs');
            Object.assign(transformers.env, {
                allowLocalModels: false, remoteHost: `${location.origin}/models/`, remotePathTemplate: '{model}/', useBrowserCache: false,
            });
            return checks(transformers, options);
        }, {...options, device});
    } finally {
        await opened.stop();
    }
}

const inChromium = device => inPage(openChromium, device), inFirefox = device => inPage(openFirefox, device);
const noChromium = !chromiumPath && 'there is no Chromium', noFirefox = !firefoxPath && 'there is no Firefox';

for (const [where, device, run, why] of [
    ['Node', 'cpu', inNode], ['Node', 'webgpu', inNode, onlyFull], ['Chromium', 'wasm', inChromium, noChromium],
    ['Chromium', 'webgpu', inChromium, noChromium || onlyFull], ['Firefox', 'webgpu', inFirefox, noFirefox || onlyFull],
]) {
    test(`${where}, ${device}: text, batches, turns, features, helpers`, {skip: skip || why}, async () => judge(await run(device), where));
}
