// Times the npm package on a GPU in Node (npm's webgpu, which is Dawn): chains of MatMulNBits, and a language model.
//   node bench/web/node.mjs [--package DIR] [--size 4096] [--bits 2,3,4] [--rows 1,8,128,1024] [--json FILE]
//                           [--model DIR [--random-weights]] [--device webgpu|wasm]
// --random-weights: the folder has the model's graph alone; its external data is made up, in a folder of its own.
// A layer's time is the slope between a chain of 64 layers and one of 16, which take turns, so that what a run costs
// once is left out. Medians. (Dawn's timestamps on Vulkan are no help: they end before the work does.)
// --dawn: features of Dawn, by commas; disable_robustness leaves out the checks of each access that pages always have.
import {closeSync, cpSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join, resolve} from 'node:path';
import {pathToFileURL} from 'node:url';
import {parseArgs} from 'node:util';

import {externalTensors} from '../../web/tests/tensors.mjs';
import {chain} from './chain.mjs';

const {values: options} = parseArgs({options: {
    package: {type: 'string', default: 'build/web'}, size: {type: 'string', default: '4096'},
    bits: {type: 'string', default: '2,3,4'}, rows: {type: 'string', default: '1,8,128,1024'},
    model: {type: 'string'}, 'random-weights': {type: 'boolean'}, device: {type: 'string', default: 'webgpu'},
    dawn: {type: 'string', default: ''}, json: {type: 'string'},
}});
const at = name => pathToFileURL(resolve(options.package, 'dist', name)).href;
const {Engine} = await import(at('engine.js'));
const {load} = await import(at('node.js'));

const LONG = 64, SHORT = 16, ROUNDS = 15, WARM_SECONDS = 0.5;
const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];
const numbers = text => text.split(',').map(Number);

/** Median seconds of a run of each session, after as many as make the GPU leave its idle clocks. */
async function timed(sessions, x) {
    const times = sessions.map(() => []), warm = performance.now() + 1000 * WARM_SECONDS;
    while (times[0].length < ROUNDS) {
        const counts = performance.now() > warm;
        for (const [i, session] of sessions.entries()) {
            const start = performance.now();
            await session.run({inputs: {x}});
            if (counts) times[i].push((performance.now() - start) / 1000);
        }
    }
    return times.map(median);
}

/** A device of Dawn with the features that are asked for; else the engine takes its own. */
async function chosenDevice() {
    if (!options.dawn) return undefined;
    const {create, globals} = await import(pathToFileURL(resolve(options.package, 'node_modules/webgpu/index.js')).href);
    Object.assign(globalThis, globals);
    globalThis.dawn = create([`enable-dawn-features=${options.dawn}`]); // its devices need it
    const adapter = await globalThis.dawn.requestAdapter({powerPreference: 'high-performance'});
    const requiredLimits = {};
    for (const name in adapter.limits) requiredLimits[name] = adapter.limits[name];
    const requiredFeatures = ['shader-f16', 'subgroups', 'timestamp-query'].filter(f => adapter.features.has(f));
    return adapter.requestDevice({requiredLimits, requiredFeatures});
}

async function chains(engine) {
    const size = Number(options.size), found = [];
    for (const bits of numbers(options.bits)) {
        const models = [];
        for (const layers of [SHORT, LONG]) {
            models.push(await engine.loadModel(chain({layers, size, bits, half: true, accuracy: 4})));
        }
        for (const activations of ['float', 'int8']) {
            const sessions = [];
            for (const model of models) sessions.push(await model.createSession({activations}));
            for (const M of numbers(options.rows)) {
                const x = {type: 'float', dims: [M, size], data: new Float32Array(M * size).map(Math.random)};
                const [short, long] = await timed(sessions, x);
                found.push({bits, activations, M, us: (long - short) / (LONG - SHORT) * 1e6});
                console.log(JSON.stringify(found.at(-1)));
            }
            for (const s of sessions) s.dispose();
        }
        for (const m of models) m.dispose();
    }
    return found;
}

let seed = 1;
/* Any codes of weights; small scales. */
function fillRandom(to, type) {
    const whole = to.length >> 2, words = new Uint32Array(whole + 1);
    for (let i = 0; i <= whole; i++) words[i] = seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    /* float16 and float32 between about 2 ** -11 and 2 ** -9 */
    if (type === 'float16') for (let i = 0; i <= whole; i++) words[i] = (words[i] >>> 3 & 0x07ff07ff) + 0x10001000;
    if (type === 'float') for (let i = 0; i <= whole; i++) words[i] = (words[i] >>> 8) + 0x3a000000;
    to.set(new Uint8Array(words.buffer, 0, to.length));
}

function withRandomWeights(folder) {
    const made = mkdtempSync(join(tmpdir(), 'dibit-bench-'));
    cpSync(folder, made, {recursive: true});
    const files = new Map();
    for (const t of externalTensors(readFileSync(join(made, 'model.onnx')))) {
        if (!files.has(t.location)) files.set(t.location, openSync(join(made, t.location), 'w'));
        const bytes = new Uint8Array(t.length);
        fillRandom(bytes, t.type);
        writeSync(files.get(t.location), bytes, 0, t.length, t.offset);
    }
    for (const file of files.values()) closeSync(file);
    return made;
}

async function model(folder) {
    const lm = await load(folder, {device: options.device, gpuDevice: await chosenDevice()}), found = [];
    for (const promptTokens of [32, 256, 512]) {
        const prompt = Array.from({length: promptTokens}, (_, i) => ' a the of and'.split(/(?= )/)[i % 4]).join('');
        const first = [], rate = [];
        let info;
        for (let i = -1; i < 5; i++) {
            const text = lm.complete(`${i} ${prompt}`, {maxTokens: 129, temperature: 0});
            for await (const piece of text) void piece;
            info = text.info;
            if (i < 0) continue;
            first.push(info.firstTokenMs);
            rate.push(info.tokensPerSecond);
        }
        found.push({promptTokens: info.promptTokens, tokens: info.tokens.length, cached: info.cachedTokens, firstTokenMs: median(first),
                    promptTokensPerSecond: info.promptTokens / median(first) * 1000, tokensPerSecond: median(rate)});
        console.log(JSON.stringify(found.at(-1)));
    }
    const explained = await lm.explain();
    await lm.dispose();
    return {found, explained};
}

const result = {};
if (options.model) {
    const folder = options['random-weights'] ? withRandomWeights(options.model) : options.model;
    try {
        result.model = await model(folder);
    } finally {
        if (options['random-weights']) rmSync(folder, {recursive: true});
    }
    console.log(result.model.explained.device, '|', result.model.explained.features?.join(' '));
} else {
    const engine = await Engine.create({device: options.device,
                                        gpuDevice: await chosenDevice()});
    console.log(engine.deviceName);
    result.device = engine.deviceName;
    result.chains = await chains(engine);
    engine.dispose();
}
if (options.json) writeFileSync(options.json, JSON.stringify(result, null, 1));
