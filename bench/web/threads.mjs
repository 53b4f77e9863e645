// What a second thread could give in wasm, which has none: two workers that share nothing, each with half of the columns of
// every product, against one with all of them; in a page that is isolated from other origins and, with --node, in Node.
// After tools/web-build.sh, with nothing else running:
//   node bench/web/threads.mjs [--node] [--rounds 9] [--rows 1,64] [--bits 2]
// The products are those of the shipped model, a token's or a prompt's. Handing over jobs is timed between the same
// workers, and added for each product; so is what both workers do to one another with the whole model.
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {parseArgs} from 'node:util';
import {pathToFileURL} from 'node:url';

import {openChromium} from '../../web/tests/browsers.mjs';
import {link, site, writePage} from '../../web/tests/site.mjs';
import {built, model, root} from '../../web/tests/support.mjs';
import {products} from './chain.mjs';

const {values: options} = parseArgs({options: {
    node: {type: 'boolean'}, rounds: {type: 'string', default: '9'}, rows: {type: 'string', default: '1,64'},
    bits: {type: 'string', default: '2'},
}});
const LAYERS = 30, JOBS = 5 * LAYERS + 1; /* of a token: four products and the attention of a layer, and the head */
const TOKENS = 48, rounds = Number(options.rounds), bits = Number(options.bits);
const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];
const range = (values, digits) => `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)})`;

/* The shipped model's products, with a share of their columns. */
function shapes(share) {
    const layer = [[576, 960], [576, 576], [576, 3072], [1536, 576]];
    return [...Array.from({length: LAYERS}, () => layer).flat().map(([K, N]) => ({K, N: N / share, bits, block: 32, half: true})),
            {K: 576, N: 49152 / share, bits: 4, block: 32, half: true}];
}

/* Two workers, in a page or here: callWorker(0 or 1, name, options). */
async function begin({script, isNode}) {
    const {Worker} = isNode ? await import('node:worker_threads') : globalThis, waiting = new Map();
    const workers = [0, 1].map(() => new Worker(isNode ? new URL(script) : script, {type: 'module'}));
    const shared = new SharedArrayBuffer(64);
    const answered = ({id, value, error}) => error ? waiting.get(id).reject(new Error(error)) : waiting.get(id).resolve(value);
    for (const worker of workers) {
        if (isNode) worker.on('message', answered);
        else worker.onmessage = ({data}) => answered(data);
    }
    globalThis.callWorker = ({worker, call, options}) => new Promise((resolve, reject) => {
        const id = Math.random();
        waiting.set(id, {resolve, reject});
        workers[worker].postMessage({id, call, options: call === 'open' ? {...options, shared} : options});
    });
}

for (const [name, share] of [['whole', 1], ['half', 2]]) writePage(`threads/${name}.onnx`, products(shapes(share)));
link(join(root, 'bench/web/threads_worker.mjs'), 'threads/worker.mjs');
/* In a worker no import map says where the tokenizer's package is. */
await createRequire(join(root, 'build/web/package.json'))('esbuild').build({
    entryPoints: [join(built, 'index.js')], outfile: join(site, 'threads/lm.js'), bundle: true, format: 'esm', target: 'es2022',
});
for (const name of ['dibit.wasm', 'dibit-relaxed.wasm']) link(join(built, name), `threads/${name}`);
const isNode = !!options.node, chromium = isNode ? null : await openChromium({isolated: true});
const evaluate = chromium?.evaluate ?? ((f, argument) => f(argument));
const file = (path, url) => isNode ? path : url, href = path => pathToFileURL(path).href;
await evaluate(begin, {isNode, script: file(href(join(root, 'bench/web/threads_worker.mjs')), '/threads/worker.mjs')});
const call = (worker, call, options) => evaluate(o => globalThis.callWorker(o), {worker, call, options});
const both = (name, options) => Promise.all([0, 1].map(worker => call(worker, name, {...options, together: true})));
const [device] = await both('open', {
    scripts: {engine: file(href(join(built, 'engine.js')), '/dibit/engine.js'), lm: file(href(join(built, 'node.js')), '/threads/lm.js')},
    models: {whole: file(join(site, 'threads/whole.onnx'), '/threads/whole.onnx'), half: file(join(site, 'threads/half.onnx'), '/threads/half.onnx')},
    folder: file(model, `${chromium?.url}model/`),
});
console.log(`${device}; ${bits} bits, ${rounds} rounds: medians, the least and the most`);

async function hand(jobs, looks) {
    const [us] = await Promise.all([call(0, 'hand', {jobs, looks}), call(1, 'take', {jobs, looks})]);
    return us;
}
const handing = {};
for (const [how, looks, jobs] of [['a waiting worker', 0, 3000], ['one that looks', 20000, 30000]]) {
    const us = [];
    for (let i = 0; i < rounds; i++) us.push(await hand(jobs, looks));
    handing[how] = median(us);
    console.log(`a job to ${how} and back: ${range(us, 2)} us`);
}

for (const M of options.rows.split(',').map(Number)) {
    const runs = Math.max(3, Math.ceil(48 / M)), got = {whole: [], half: [], halves: []};
    for (let round = -2; round < rounds; round++) { /* the first ones make V8 compile it well */
        const whole = await call(0, 'run', {name: 'whole', M, runs}), half = await call(0, 'run', {name: 'half', M, runs});
        const [a, b] = await both('run', {name: 'half', M, runs});
        if (round < 0) continue;
        got.whole.push(median(whole));
        got.half.push(median(half));
        got.halves.push(median(a.map((ms, i) => Math.max(ms, b[i]))));
    }
    console.log(`M ${M}: one worker ${range(got.whole, 2)} ms, a half alone ${range(got.half, 2)} ms, two halves ${range(got.halves, 2)} ms`);
    const times = (us = 0) => range(got.whole.map((ms, i) => ms / (got.halves[i] + JOBS * us / 1000)), 2);
    console.log(`M ${M}: two are ${times()} times as fast, with ${JOBS} jobs handed over ${Object.entries(handing).map(
        ([how, us]) => `${times(us)} to ${how}`).join(', ')}`);
}

const alone = [], beside = [];
for (let round = -1; round < rounds; round++) {
    const one = await call(0, 'write', {tokens: TOKENS}), two = await both('write', {tokens: TOKENS});
    if (round < 0) continue;
    alone.push(one);
    beside.push((two[0] + two[1]) / one);
}
console.log(`the whole model in each: ${range(alone, 1)} tokens/s alone, ${range(beside, 2)} times that in both together`);
await chromium?.stop();
process.exit(0);
