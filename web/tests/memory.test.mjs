// What loading takes: wasm memory, JS heap and ArrayBuffers, sampled while a model of 1 GB comes over HTTP and goes
// to a GPU that keeps nothing; and offsets beyond 4 GB, in a sparse file.
import assert from 'node:assert/strict';
import {mkdtempSync, openSync, rmSync, writeSync, closeSync, ftruncateSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {test} from 'node:test';
import {setFlagsFromString} from 'node:v8';
import {runInNewContext} from 'node:vm';
import {chain, fileSize, fillPattern, readFile} from './onnx.mjs';
import {Engine, fakeDevice, startServer} from './web.mjs';

const MB = 2 ** 20, CHUNK = 8 * MB, LIMIT = 64 * MB + CHUNK;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc');

/** How much memory `work` took at most, over the test's own, sampled every 50 ms. Where other work keeps V8 from collecting
 * what nobody holds any more, and that is beyond the limit, what is left counts. */
async function peakOf(engine, work) {
    collect();
    const before = process.memoryUsage();
    let peak = 0, samples = 0;
    const taken = () => {
        const {heapUsed, arrayBuffers} = process.memoryUsage();
        return heapUsed - before.heapUsed + arrayBuffers - before.arrayBuffers + engine.memoryBytes;
    };
    const sample = () => {
        if (taken() >= LIMIT) collect();
        peak = Math.max(peak, taken());
        samples++;
    };
    const timer = setInterval(sample, 50);
    await work();
    sample();
    clearInterval(timer);
    return {peak, samples};
}

for (const [layers, noRange] of [[42, false], [10, true]]) {
    const {file} = chain({layers, size: 8192}), size = fileSize(file);
    test(`${Math.round(size / 1e6)} MB from a server ${noRange ? 'without' : 'with'} Range take less than 64 MB and a chunk`, async t => {
        const server = await startServer();
        t.after(() => server.stop());
        await server.serve({path: '/model.onnx', segments: file, noRange});
        let written = 0;
        const device = fakeDevice({onWrite: (buffer, offset, bytes) => void (written += bytes.length)});
        const engine = await Engine.create({gpuDevice: device});
        let loaded = 0;
        const {peak, samples} = await peakOf(engine, async () => {
            const model = await engine.loadModel(`${server.url}/model.onnx`, {onProgress: p => void (loaded = p.loaded)});
            const session = await model.createSession({noProof: true});
            assert.ok(session.info().weightBytes > 0.99 * size);
        });
        console.log(`peak ${(peak / MB).toFixed(1)} MB in ${samples} samples, ${server.requests.length} requests`);
        assert.ok(written > 0.99 * size && written < 1.01 * size);
        assert.equal(loaded, size);
        assert.ok(samples > 10);
        assert.ok(peak < LIMIT, `${peak} bytes`);
        engine.dispose();
    });
}

test('weights beyond 4 GB of a file come from where they lie', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'dibit-')), data = join(folder, 'model.data');
    const at = [0, 2 ** 20, 2 ** 31 - 100, 2 ** 32 - 3, 2 ** 32 + 2 ** 20 + 1, 5 * 2 ** 30, 6 * 2 ** 30, 7 * 2 ** 30 + 1];
    const {file, weights} = chain({layers: 4, size: 512, external: 'model.data', place: i => at[i]});
    const fd = openSync(data, 'w');
    ftruncateSync(fd, 8 * 2 ** 30); /* holes, but for the weights */
    for (const w of weights) {
        const bytes = Buffer.alloc(w.length);
        if (w.pattern) fillPattern(bytes, w.offset);
        writeSync(fd, bytes, 0, bytes.length, w.offset);
    }
    closeSync(fd);
    const model = join(folder, 'model.onnx'), modelFd = openSync(model, 'w');
    writeSync(modelFd, readFile(file, 0, fileSize(file)));
    closeSync(modelFd);
    const writes = new Map();
    const device = fakeDevice({onWrite: (buffer, offset, bytes) => {
        if (!writes.has(buffer)) writes.set(buffer, Buffer.alloc(buffer.size));
        writes.get(buffer).set(bytes, offset);
    }});
    const engine = await Engine.create({gpuDevice: device});
    try {
        const {peak} = await peakOf(engine, async () => {
            await (await engine.loadModel(model)).createSession({noProof: true});
        });
        assert.ok(peak < LIMIT);
        for (const w of weights.filter(w => w.pattern)) {
            const expected = Buffer.alloc(w.length);
            fillPattern(expected, w.offset);
            assert.ok([...writes.values()].some(b => b.subarray(0, w.length).equals(expected)), `${w.offset}`);
        }
    } finally {
        engine.dispose();
        rmSync(folder, {recursive: true});
    }
});
