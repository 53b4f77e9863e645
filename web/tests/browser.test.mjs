// The package in Chromium: load() in its worker; transformers.js unpatched through an import map and through a bundler's
// alias; an onnxruntime-web program through an alias.
import assert from 'node:assert/strict';
import {cpSync, existsSync, mkdirSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import test, {after, before} from 'node:test';
import {pathToFileURL} from 'node:url';

import {chromiumPath, launchChromium} from './browsers.mjs';
import {link, serveSite, site, transformers, writePage} from './site.mjs';
import {cases, model, root, scratch} from './support.mjs';

const {build} = createRequire(join(root, 'build/web/package.json'))('esbuild');
const skip = !chromiumPath && 'there is no Chromium';
const skipTransformers = skip || (!existsSync(transformers) && 'transformers.js is not installed');

let browser, server;

before(async () => {
    if (skip) return;
    server = await serveSite();
    browser = await launchChromium();
});

after(async () => {
    await browser?.close();
    await server?.stop();
});

/* A page, and a wait for an expression in it that ends when the page throws. */
async function open(path) {
    const page = await browser.newPage();
    const failed = new Promise((_, reject) => {
        page.on('pageerror', reject);
        page.on('crash', () => reject(new Error('the page crashed')));
    });
    failed.catch(() => {});
    await page.goto(server.url + path);
    return {page, until: expression => Promise.race([
        failed, page.waitForFunction(expression, undefined, {timeout: 240_000}),
    ])};
}

test('load() on a plain page runs in a worker, and the page stays smooth', {skip}, async () => {
    writePage('plain.html', '<!doctype html><script type=module>import * as dibit from "./dibit/index.js"; window.dibit = dibit;</script>');
    const {page, until} = await open('plain.html');
    await until('window.dibit');
    const result = await page.evaluate(async () => {
        let longest = 0, last = performance.now(), running = true;
        const tick = () => {
            const now = performance.now();
            longest = Math.max(longest, now - last);
            last = now;
            if (running) setTimeout(tick, 0);
        };
        tick();
        const stages = new Set();
        const lm = await dibit.load('model/', {device: 'wasm', cache: false, onProgress: p => stages.add(p.stage)});
        const generation = lm.chat([{role: 'user', content: 'Why is the sky blue?'}], {maxTokens: 4});
        let text = '';
        for await (const piece of generation) text += piece;
        const stopped = new AbortController();
        let reason;
        try {
            for await (const piece of lm.complete('One two', {maxTokens: 400, signal: stopped.signal})) {
                stopped.abort(new Error(`after ${piece}`));
            }
        } catch (e) {
            reason = e.message;
        }
        const next = await lm.complete('One two', {maxTokens: 1}).text(), device = (await lm.explain()).device;
        await lm.dispose();
        running = false;
        const wrong = await dibit.load('nothing/').catch(e => e.message);
        return {text, tokens: generation.info.tokens, stages: [...stages], reason, next, device, wrong, longest};
    });
    assert.deepEqual(result.tokens, [504, 6376, 4461, 314]);
    assert.equal(result.text, 'The sky blue is');
    assert.deepEqual(result.stages, ['tokenizer', 'model', 'prepare', 'ready']);
    assert.match(result.reason, /^after /);
    assert.match(result.device, /^cpu/);
    assert.match(result.wrong, /no model\.onnx|tokenizer/);
    for (let i = 0; i < 100 && page.workers().length > 0; i++) await new Promise(r => setTimeout(r, 50));
    assert.equal(page.workers().length, 0);
    await page.close();
});

async function transformersPage(name, device) {
    const {page, until} = await open(`${name}/index.html?models=${encodeURIComponent(`${server.url}models/`)}&name=smollm2&device=${
        device}&tokens=2`);
    await until('document.querySelector("output").dataset.done');
    const text = await page.textContent('output');
    await page.close();
    return text.trim();
}

async function linkModels() {
    const {layOut} = await import(pathToFileURL(join(root, 'tools/transformers_layout.mjs')));
    layOut(model, join(scratch, 'models/smollm2'));
    link(join(scratch, 'models'), 'models');
}

test('transformers.js through an import map', {skip: skipTransformers}, async () => {
    await linkModels();
    for (const file of ['index.html', 'main.js']) {
        mkdirSync(join(site, 'map'), {recursive: true});
        cpSync(join(root, 'examples/transformers-import-map', file), join(site, 'map', file));
    }
    link(transformers, 'map/node_modules/@huggingface/transformers');
    link(join(root, 'build/web'), 'map/node_modules/dibit');
    link(join(root, 'build/node/node_modules/onnxruntime-common'), 'map/node_modules/onnxruntime-common');
    assert.equal(await transformersPage('map', 'wasm'), 'The sky');
});

test('transformers.js through a bundler\'s alias', {skip: skipTransformers}, async () => {
    await linkModels();
    const example = join(root, 'examples/transformers-bundler');
    await build({
        entryPoints: [join(example, 'main.js')], bundle: true, format: 'esm', outfile: join(site, 'bundle/main.js'),
        conditions: ['browser'], define: {'import.meta.url': 'document.baseURI'}, logLevel: 'error',
        alias: {
            '@huggingface/transformers': join(transformers, 'dist/transformers.web.js'),
            'onnxruntime-web/webgpu': join(root, 'build/web/dist/ort.js'),
            'onnxruntime-common': join(root, 'build/node/node_modules/onnxruntime-common/dist/esm/index.js'),
        },
    });
    cpSync(join(example, 'index.html'), join(site, 'bundle/index.html'));
    for (const name of ['dibit.wasm', 'dibit-relaxed.wasm']) link(join(root, 'build/web/dist', name), `bundle/${name}`);
    assert.equal(await transformersPage('bundle', 'wasm'), 'The sky');
});

test('an onnxruntime-web program through an alias, on WebGPU and wasm', {skip}, async () => {
    const example = join(root, 'examples/onnxruntime-web');
    await build({
        entryPoints: [join(example, 'main.js')], bundle: true, format: 'esm', outfile: join(site, 'ort/main.js'), logLevel: 'error',
        define: {'import.meta.url': 'document.baseURI'}, alias: {'onnxruntime-web': join(root, 'build/web/dist/ort.js')},
    });
    cpSync(join(example, 'index.html'), join(site, 'ort/index.html'));
    for (const name of ['dibit.wasm', 'dibit-relaxed.wasm']) link(join(root, 'build/web/dist', name), `ort/${name}`);
    for (const name of ['model.onnx', 'model.onnx.data']) link(join(cases, 'llama.q2', name), `ort/${name}`);
    const {page, until} = await open('ort/index.html');
    await until('document.querySelector("output").textContent');
    const tokens = (await page.textContent('output')).split(' ').map(Number);
    const onWasm = await page.evaluate(async () => (await import('./main.js')).nextTokens('model.onnx', [3, 141, 59, 26, 5], 8,
                                                                                     {executionProviders: ['wasm']}));
    assert.equal(tokens.length, 8);
    assert.deepEqual(onWasm, tokens);
    await page.close();
});
