// Where models come from: servers with and without Range, connections that break, files that change, Blobs, bytes,
// folders, and the store of what has come over the network.
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, test} from 'node:test';
import {chain, fileSize, readFile} from './onnx.mjs';
import {DibitError, Engine, evict, fakeDevice, root, startServer, storedFiles} from './web.mjs';

const CHUNK = 8 << 20;
const folder = join(root, 'tests/data/cases/bert.q2');
const small = {name: readFileSync(join(folder, 'model.onnx')), data: readFileSync(join(folder, 'model.onnx.data'))};
const segmentOf = bytes => [{offset: 0, length: bytes.length, bytes}];

let engine, server, expected;

before(async () => {
    engine = await Engine.create({device: 'wasm'});
    server = await startServer();
    expected = await answer(await engine.loadModel(join(folder, 'model.onnx')));
});
after(async () => {
    engine.dispose();
    await server.stop();
});

/** The model's answer to a short text, which says that weights came right. */
async function answer(model) {
    const session = await model.createSession();
    const ids = value => ({type: 'int64', dims: [1, 4], data: BigInt64Array.of(...[1, 2, 3, 4].map(value))});
    const out = await session.run({inputs: Object.fromEntries(model.inputs.map(({name}) =>
        [name, ids(name === 'input_ids' ? BigInt : name === 'attention_mask' ? () => 1n : () => 0n)]))});
    model.dispose();
    return Object.values(out)[0].data;
}

async function serveSmall(path, options = {}) {
    await server.serve({path: `/${path}/model.onnx`, segments: segmentOf(small.name), ...options});
    await server.serve({path: `/${path}/model.onnx.data`, segments: segmentOf(small.data), ...options});
    return `${server.url}/${path}/model.onnx`;
}

const fails = (status, pattern) => e => {
    assert.ok(e instanceof DibitError, e.stack);
    assert.equal(e.status, status, e.message);
    assert.match(e.message, pattern);
    return true;
};

for (const [name, options] of Object.entries({
    'with Range': {tag: '"1"'}, 'without Range': {noRange: true}, 'without Range or a length': {noRange: true, noLength: true},
})) {
    test(`a server ${name}`, async () => {
        const url = await serveSmall(name.replaceAll(' ', '-'), options);
        assert.deepEqual(await answer(await engine.loadModel(url)), expected);
        assert.deepEqual(await answer(await engine.loadModel(new URL(url))), expected);
    });
}

test('memory, Blobs, folders, external data by name', async () => {
    const blob = bytes => new Blob([bytes]), external = {'model.onnx.data': small.data};
    const file = (path, bytes) => Object.defineProperty(new File([bytes], path.split('/').at(-1)), 'webkitRelativePath',
                                                        {value: path});
    for (const [source, options] of [
        [small.name, {external}],
        [new Uint8Array(small.name).buffer, {external: {'./model.onnx.data': blob(small.data)}}],
        [blob(small.name), {external}],
        [{files: {'m/model.onnx': blob(small.name), 'm/model.onnx.data': blob(small.data)}, model: 'm/model.onnx'}],
        [{files: [file('top/m/model.onnx', small.name), file('top/m/model.onnx.data', small.data)],
          model: 'm/model.onnx'}],
        [join(folder, 'model.onnx'), {external}],
        [new URL(`file://${join(folder, 'model.onnx')}`)],
    ]) {
        assert.deepEqual(await answer(await engine.loadModel(source, options)), expected);
    }
    await assert.rejects(engine.loadModel(small.name), fails('NOT_FOUND', /'model\.onnx\.data'.*was not given/));
    await assert.rejects(engine.loadModel({files: {'model.onnx': blob(small.name)}, model: 'model.onnx'}),
                         fails('NOT_FOUND', /model\.onnx\.data/));
    await assert.rejects(engine.loadModel({files: {}, model: 'model.onnx'}), fails('NOT_FOUND', /no 'model\.onnx'/));
    await assert.rejects(engine.loadModel(7), fails('BAD_ARGUMENT', /a model is/));
});

test('external data that is too short', async () => {
    const model = engine.loadModel(small.name, {external: {'model.onnx.data': small.data.subarray(0, 1000)}});
    await assert.rejects(model, e => e instanceof DibitError && /model\.onnx\.data/.test(e.message));
});

test('what a server says no to', async () => {
    const url = `${server.url}/missing.onnx`;
    await assert.rejects(engine.loadModel(url), fails('IO', /missing\.onnx: the server answers 404/));
    await server.serve({path: '/broken.onnx', segments: [], status: 503});
    await assert.rejects(engine.loadModel(`${server.url}/broken.onnx`), fails('IO', /503/));
    await assert.rejects(engine.loadModel('http://127.0.0.1:9/m.onnx'), fails('IO', /not reachable/));
    const alone = await serveSmall('alone');
    await server.forget('/alone/model.onnx.data');
    await assert.rejects(engine.loadModel(alone), fails('IO', /model\.onnx\.data.*404/));
});

test('a file of another size than declared, or that changes while it is loaded', async () => {
    const url = await serveSmall('sized', {tag: '"a"'});
    const size = small.name.length;
    (await engine.loadModel({url, size})).dispose();
    await assert.rejects(engine.loadModel({url, size: size + 1}), fails('IO', new RegExp(
        `${size} bytes where ${size + 1} were expected`)));
    const {file} = chain({layers: 2, size: 1024});
    await server.serve({path: '/changing.onnx', segments: file, tag: '"a"'});
    const gpu = await Engine.create({gpuDevice: fakeDevice()});
    for (const change of [{tag: '"b"'}, {tag: '"a"', size: fileSize(file) + 1}]) {
        await server.serve({path: '/changing.onnx', segments: file, tag: '"a"'});
        const model = await gpu.loadModel(`${server.url}/changing.onnx`);
        await server.serve({path: '/changing.onnx', segments: file, ...change});
        await assert.rejects(model.createSession({noProof: true}), fails('IO', /was changed/));
        model.dispose();
    }
    gpu.dispose();
});

/** A GPU that says whether each weight of a chain came right. */
async function weighing() {
    const writes = new Map();
    const device = fakeDevice({onWrite: (buffer, offset, bytes) => {
        if (!writes.has(buffer)) writes.set(buffer, Buffer.alloc(buffer.size));
        writes.get(buffer).set(bytes, offset);
    }});
    return {
        engine: await Engine.create({gpuDevice: device}),
        check(file) {
            for (const s of file.filter(s => s.pattern)) {
                const bytes = readFile(file, s.offset, s.length);
                assert.ok([...writes.values()].some(b => b.subarray(0, s.length).equals(bytes)), `at ${s.offset}`);
            }
        },
    };
}

const big = chain({layers: 4, size: 4096}).file; /* 25 MB */

for (const noRange of [false, true]) {
    test(`connections that break ${noRange ? 'without' : 'with'} Range`, async () => {
        const {engine: gpu, check} = await weighing();
        const url = `${server.url}/cut${noRange}.onnx`;
        await server.serve({path: `/cut${noRange}.onnx`, segments: big, noRange, cuts: 2, cutAfter: 3 << 20});
        await (await gpu.loadModel(url)).createSession({noProof: true});
        check(big);
        gpu.dispose();
    });
}

test('a connection that breaks again and again', async () => {
    await server.serve({path: '/always.onnx', segments: big, cuts: 1000, cutAfter: 1000});
    const slow = engine.loadModel(`${server.url}/always.onnx`);
    await assert.rejects(slow, fails('IO', /always\.onnx.*(broke|ends|not reachable)/));
});

test('a load that is aborted', async () => {
    const {engine: gpu} = await weighing(), controller = new AbortController();
    await server.serve({path: '/aborted.onnx', segments: big});
    const model = await gpu.loadModel(`${server.url}/aborted.onnx`, {onProgress: () => {
        if (server.requests.at(-1).path === '/aborted.onnx') setTimeout(() => controller.abort(), 0);
    }});
    await assert.rejects(model.createSession({noProof: true, signal: controller.signal}), {name: 'AbortError'});
    await assert.rejects(gpu.loadModel(`${server.url}/aborted.onnx`, {signal: AbortSignal.abort()}), {name: 'AbortError'});
    await model.createSession({noProof: true}); /* and it may be tried again */
    gpu.dispose();
});

/** Cache storage of a browser, in memory; `limit` bytes at most. */
function fakeCaches(limit = Infinity) {
    const all = new Map();
    const used = () => [...all.values()].reduce((n, b) => n + b.length, 0);
    const cache = {
        match: async url => all.has(url) ? new Response(all.get(url)) : undefined,
        put: async (url, response) => {
            const bytes = new Uint8Array(await response.arrayBuffer());
            if (used() + bytes.length > limit) throw new DOMException('no room', 'QuotaExceededError');
            all.set(url, bytes);
        },
        delete: async url => all.delete(url),
        keys: async () => [...all.keys()].map(url => ({url})),
    };
    return {open: async () => cache, all, used};
}

const chunks = caches => [...caches.all.keys()].filter(key => !key.endsWith('/meta')).length;

async function loadStored(url, caches) {
    const {engine: gpu, check} = await weighing();
    try {
        await (await gpu.loadModel(url, {cache: {caches}})).createSession({noProof: true});
        check(big);
    } finally {
        gpu.dispose();
    }
}

for (const noRange of [false, true]) {
    test(`the store: one download ${noRange ? 'without' : 'with'} Range, then none`, async () => {
        const caches = fakeCaches(), path = `/stored${noRange}.onnx`, url = server.url + path;
        await server.serve({path, segments: big, noRange, tag: '"1"'});
        const before = server.requests.length;
        await loadStored(url, caches);
        assert.equal(chunks(caches), Math.ceil(fileSize(big) / CHUNK));
        const [file] = await storedFiles({caches});
        assert.deepEqual({...file, opened: 0}, {url, size: fileSize(big), storedBytes: fileSize(big), opened: 0});
        const first = server.requests.length;
        assert.ok(first - before < 12, `${first - before} requests`);
        await loadStored(url, caches);
        assert.equal(server.requests.length, first + 1); /* whether it has changed */
        await server.forget(path);
        await assert.rejects(loadStored(url, caches), fails('IO', /404/));
        await evict(url, {caches});
        assert.equal(caches.all.size, 0);
    });
}

test('the store: offline', async () => {
    const other = await startServer(), caches = fakeCaches();
    await other.serve({path: '/m.onnx', segments: big});
    await loadStored(`${other.url}/m.onnx`, caches);
    await other.stop();
    await loadStored(`${other.url}/m.onnx`, caches);
    caches.all.delete([...caches.all.keys()].find(key => key.endsWith('/1')));
    await assert.rejects(loadStored(`${other.url}/m.onnx`, caches), fails('IO', /not reachable/));
});

test('the store: a download that was cut goes on, a changed file begins anew, a broken chunk comes again', async () => {
    const caches = fakeCaches(), url = `${server.url}/resumed.onnx`;
    await server.serve({path: '/resumed.onnx', segments: big, tag: '"1"'});
    await loadStored(url, caches);
    const keys = [...caches.all.keys()].filter(key => !key.endsWith('/meta')).sort();
    caches.all.delete(keys[2]);
    caches.all.set(keys[1], new Uint8Array(5));
    const before = server.requests.length;
    await loadStored(url, caches);
    assert.ok(server.requests.slice(before + 1).every(r => Number(r.range.slice(6).split('-')[0]) >= CHUNK));
    assert.equal(chunks(caches), 4);
    await server.serve({path: '/resumed.onnx', segments: big, tag: '"2"'});
    const changed = server.requests.length;
    await loadStored(url, caches);
    assert.ok(server.requests.slice(changed).some(r => r.range.startsWith('bytes=0-')));
});

test('the store: no room', async () => {
    const caches = fakeCaches(10 << 20), url = `${server.url}/full.onnx`;
    await server.serve({path: '/full.onnx', segments: big});
    await loadStored(url, caches);
    assert.ok(caches.used() <= 10 << 20 && chunks(caches) === 1);
});
