// The engine in headless Chromium: on the CPU in wasm, and on WebGPU with SwiftShader.
import assert from 'node:assert/strict';
import {basename, join} from 'node:path';
import {after, before, test} from 'node:test';
import {chromiumPath, engineInPage, openChromium} from './browsers.mjs';
import {caseFolders, checkCase, isOfCpu, isSmall, share} from './cases.mjs';
import {checkGreedy, generate, noJudge} from './greedy.mjs';
import {checkLoss} from './loss.mjs';
import {chain, fileSize} from './onnx.mjs';
import {link} from './site.mjs';
import {cases} from './support.mjs';
import {Engine, startServer} from './web.mjs';

const MB = 2 ** 20, CHUNK = 8 * MB;
const skip = !chromiumPath && 'there is no Chromium';
const full = process.env.DIBIT_FULL === '1';

let plain, isolated, cpu;

before(async () => {
    if (skip) return;
    cpu = await Engine.create({device: 'wasm'});
    plain = await openChromium();
    isolated = await openChromium({isolated: true});
});
after(async () => {
    cpu?.dispose();
    await plain?.stop();
    await isolated?.stop();
});

async function check(page, device, folders) {
    const engine = await engineInPage(page, {device});
    console.log(`Chromium: ${engine.deviceName}${engine.relaxed ? ', relaxed SIMD' : ''}`);
    assert.match(engine.deviceName, device === 'wasm' ? /^cpu/ : /swiftshader/i);
    try {
        for (const folder of folders) assert.deepEqual(await checkCase(folder, engine, cpu), [], folder);
    } finally {
        await engine.dispose();
    }
}

const greedy = (opened, device, choice) => checkGreedy('Chromium', options => opened.evaluate(generate, {
    ...options, scripts: '/dibit/index.js', folder: '/model/',
}), {device, ...choice});

/* Each further shader takes SwiftShader seconds to compile, a whole model most of a minute. */
const QUICK = ['causal_conv_step', 'layer_norm', 'gather_quantized_2bit_zp', 'nbits_2bit_block16_zp'];
const onGpu = caseFolders.filter(folder => !isOfCpu(folder));
const small = onGpu.filter(isSmall), models = onGpu.filter(folder => !isSmall(folder));
const ON = {
    wasm: full ? caseFolders : share(caseFolders, 40, 3),
    webgpu: full ? [...small, ...share(models, 5, 3)] : QUICK.map(name => join(cases, name)),
};

for (const [device, folders] of Object.entries(ON)) {
    for (let at = 0; at < folders.length; at += 20) {
        const part = folders.slice(at, at + 20);
        test(`Chromium, ${device}: ${part.map(folder => basename(folder)).join(', ')}`, {skip}, () =>
            check(plain, device, part));
    }
}

test('Chromium, cross-origin isolated: on the CPU, on WebGPU, and in load()\'s worker', {skip}, async () => {
    assert.equal(await plain.evaluate(() => crossOriginIsolated), false);
    assert.equal(await isolated.evaluate(() => crossOriginIsolated), true);
    await check(isolated, 'wasm', [join(cases, 'llama.q2'), join(cases, 'bert.q2')]);
    await check(isolated, 'webgpu', [join(cases, 'nbits_2bit_block16_zp')]);
    if (!noJudge) await greedy(isolated, 'wasm', {count: 1, maxTokens: 4});
});

test('Chromium: the browser\'s cache keeps a model', {skip}, async () => {
    const path = `${link(join(cases, 'bert.q2'), 'cases/bert.q2')}/model.onnx`;
    await engineInPage(plain, {device: 'wasm'});
    const stored = await plain.evaluate(async path => {
        const engine = await dibit.Engine.create({device: 'wasm'});
        const url = new URL(path, location.href).href;
        let requests = 0;
        const original = fetch;
        globalThis.fetch = (...args) => {
            requests++;
            return original(...args);
        };
        const counts = [];
        for (let i = 0; i < 2; i++) {
            requests = 0;
            const model = await engine.loadModel(url, {cache: true});
            await model.createSession();
            counts.push(requests);
        }
        globalThis.fetch = original;
        const files = await dibit.storedFiles();
        await dibit.evict();
        engine.dispose();
        return {counts, files: files.map(f => [new URL(f.url).pathname.split('/').at(-1), f.size === f.storedBytes]),
            left: (await dibit.storedFiles()).length};
    }, path);
    assert.deepEqual(stored.files.sort(), [['model.onnx', true], ['model.onnx.data', true]]);
    assert.equal(stored.counts[1], 2); /* whether they have changed */
    assert.equal(stored.left, 0);
});

const big = chain({layers: full ? 42 : 11, size: 8192}).file, bigMegabytes = Math.round(fileSize(big) / 1e6);

test(`Chromium: loading ${bigMegabytes} MB to a GPU takes less than 64 MB and a chunk`, {skip}, async () => {
    const server = await startServer(), {page} = plain;
    await server.serve({path: '/big.onnx', segments: big});
    const session = await page.context().newCDPSession(page);
    const usage = async () => { /* JS heap, ArrayBuffers and wasm memories */
        const {usedSize, backingStorageSize} = await session.send('Runtime.getHeapUsage');
        return usedSize + backingStorageSize;
    };
    await page.evaluate(async () => void (globalThis.dibit = await import('/dibit/engine.js')));
    await session.send('HeapProfiler.collectGarbage');
    const first = await usage();
    let peak = 0, samples = 0, going = true;
    const sampling = (async () => {
        for (; going; samples++) {
            peak = Math.max(peak, await usage() - first);
            await new Promise(resolve => setTimeout(resolve, 50));
        }
    })();
    const wasm = await page.evaluate(async url => {
        const engine = await dibit.Engine.create({device: 'webgpu'});
        const model = await engine.loadModel(url);
        const session = await model.createSession({noProof: true});
        const bytes = engine.memoryBytes, {weightBytes} = session.info();
        engine.dispose();
        return {bytes, weightBytes};
    }, `${server.url}/big.onnx`);
    going = false;
    await sampling;
    await server.stop();
    console.log(`Chromium: ${bigMegabytes} MB of weights, peak ${(peak / MB).toFixed(1)} MB in ${samples} samples, ${
        (wasm.bytes / MB).toFixed(1)} MB of them the engine's memory`);
    assert.ok(wasm.weightBytes > 0.99e6 * bigMegabytes && samples > 5);
    assert.ok(peak > wasm.bytes, 'wasm memory is among what is sampled');
    assert.ok(peak < 64 * MB + CHUNK);
});

// The page's tests lose one, too.
test('Chromium: a GPU that is lost in mid-generation', {skip: skip || !full && 'only with DIBIT_FULL=1'}, () =>
    checkLoss(plain, [1, 5, 20]));

/* All of it takes SwiftShader ten minutes: the last prompts have 500 tokens. */
for (const [device, maxTokens] of [['wasm', 64], ['webgpu', 16]]) {
    test(`Chromium, ${device}: greedy text`, {skip: skip || noJudge}, () =>
        greedy(plain, device, full ? {maxTokens} : {count: 2, maxTokens: 8}));
}
