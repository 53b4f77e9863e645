// The package in Chromium: load() in its worker; transformers.js unpatched through an import map and through a bundler's
// alias; an onnxruntime-web program through an alias.
import assert from 'node:assert/strict';
import {cpSync, createReadStream, existsSync, mkdirSync, rmSync, statSync, symlinkSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:http';
import {createRequire} from 'node:module';
import {extname, join} from 'node:path';
import test, {after, before} from 'node:test';
import {pathToFileURL} from 'node:url';

import {cases, model, root} from './support.mjs';

const require = createRequire(join(root, 'build/web/package.json'));
const {chromium} = require('playwright-core'), {build} = require('esbuild');
const executablePath = process.env.DIBIT_CHROMIUM ?? '/usr/bin/chromium';
const transformers = join(root, 'build/transformers/node_modules/@huggingface/transformers');
const skip = !existsSync(executablePath) && 'there is no Chromium';
const skipTransformers = skip || (!existsSync(transformers) && 'transformers.js is not installed');

const site = join(root, 'build/web/tests/site');
const MIME = {'.js': 'text/javascript', '.mjs': 'text/javascript', '.html': 'text/html', '.wasm': 'application/wasm',
              '.json': 'application/json'};
let browser, server, base;

function serve(request, response) {
    const path = join(site, decodeURIComponent(new URL(request.url, 'http://x').pathname));
    const stat = statSync(path, {throwIfNoEntry: false});
    if (!stat?.isFile()) return void response.writeHead(404).end();
    const [, from, to] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? [];
    const start = Number(from ?? 0), end = Math.min(Number(to || stat.size - 1), stat.size - 1);
    response.writeHead(from === undefined ? 200 : 206, {
        'content-type': MIME[extname(path)] ?? 'application/octet-stream', 'content-length': end - start + 1,
        'content-range': `bytes ${start}-${end}/${stat.size}`,
    });
    if (request.method === 'HEAD') response.end();
    else createReadStream(path, {start, end}).pipe(response);
}

function link(target, name) {
    rmSync(join(site, name), {recursive: true, force: true});
    mkdirSync(join(site, name, '..'), {recursive: true});
    symlinkSync(target, join(site, name));
}

before(async () => {
    if (skip) return;
    link(join(root, 'build/web/dist'), 'dibit');
    link(model, 'model');
    server = createServer(serve);
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
    base = `http://127.0.0.1:${server.address().port}/`;
    browser = await chromium.launch({executablePath, args: [
        '--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan', '--use-webgpu-adapter=swiftshader',
    ]});
});

after(async () => {
    await browser?.close();
    server?.close();
});

/* A page, and a wait for an expression in it that ends when the page throws. */
async function open(path) {
    const page = await browser.newPage();
    const failed = new Promise((_, reject) => {
        page.on('pageerror', reject);
        page.on('crash', () => reject(new Error('the page crashed')));
    });
    failed.catch(() => {});
    await page.goto(base + path);
    return {page, until: expression => Promise.race([
        failed, page.waitForFunction(expression, undefined, {timeout: 240_000}),
    ])};
}

function writePage(name, html) {
    mkdirSync(join(site, name, '..'), {recursive: true});
    rmSync(join(site, name), {force: true});
    writeFileSync(join(site, name), html);
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
    const {page, until} = await open(`${name}/index.html?models=${encodeURIComponent(`${base}models/`)}&name=smollm2&device=${
        device}&tokens=2`);
    await until('document.querySelector("output").dataset.done');
    const text = await page.textContent('output');
    await page.close();
    return text.trim();
}

async function linkModels() {
    const {layOut} = await import(pathToFileURL(join(root, 'tools/transformers_layout.mjs')));
    layOut(model, join(root, 'build/web/tests/models/smollm2'));
    link(join(root, 'build/web/tests/models'), 'models');
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
