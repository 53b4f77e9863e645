// Times the wasm kernels of MatMulNBits in Chromium against native AVX2, one thread each and in turn: 2048 x 2048, block 32,
// packed zero points, int8 activations; as times what AVX2 takes. After tools/web-build.sh, with a native `dibit`:
//   node bench/web/native.mjs [--dibit build/test/dibit] [--rounds 6] [--bits 2,4] [--rows 1,16]
// In the page a layer's time is the slope between one and nine that share its weights, so that what a run costs is left out.
import {execFileSync} from 'node:child_process';
import {parseArgs} from 'node:util';

import {openChromium} from '../../web/tests/browsers.mjs';
import {chain} from './chain.mjs';

const {values: options} = parseArgs({options: {
    dibit: {type: 'string', default: 'build/test/dibit'}, rounds: {type: 'string', default: '6'},
    bits: {type: 'string', default: '2,4'}, rows: {type: 'string', default: '1,16'},
}});
const SIZE = 2048, LAYERS = 9, BINARIES = {relaxed: 'dibit-relaxed.wasm', plain: 'dibit.wasm'};
const numbers = text => text.split(',').map(Number);
const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];

/* Microseconds a layer, the least of five runs of the command. */
function native(bits, M) {
    const shape = ['-m', M, '--n', SIZE, '--k', SIZE, '--bits', bits, '--megabytes', 0];
    const how = ['--threads', 1, '--isa', 'avx2', '--activations', 'int8', '--json'];
    return JSON.parse(execFileSync(options.dibit, ['bench-op', 'matmul_nbits', ...shape, ...how].map(String)))[0].us_least;
}

/* In the page: globalThis.timed(binary, bits, M, runs) gives microseconds a layer, the least of so many runs. */
async function prepare({binaries, models, size, layers}) {
    const {Engine} = await import('/dibit/engine.js'), sessions = {};
    for (const [binary, file] of Object.entries(binaries)) {
        const engine = await Engine.create({device: 'wasm', wasm: `/dibit/${file}`});
        for (const [bits, chains] of Object.entries(models)) {
            sessions[`${binary} ${bits}`] = await Promise.all(chains.map(async bytes =>
                (await engine.loadModel(Uint8Array.from(bytes))).createSession({activations: 'int8'})));
        }
    }
    globalThis.timed = async ({binary, bits, M, runs}) => {
        const x = {type: 'float', dims: [M, size], data: Float32Array.from({length: M * size}, (_, i) => Math.sin(i))};
        const least = [Infinity, Infinity];
        for (let run = 0; run < runs; run++) {
            for (const [i, session] of sessions[`${binary} ${bits}`].entries()) {
                const start = performance.now();
                await session.run({inputs: {x}});
                least[i] = Math.min(least[i], performance.now() - start);
            }
        }
        return 1000 * (least[1] - least[0]) / (layers - 1);
    };
}

const models = Object.fromEntries(numbers(options.bits).map(bits => [bits, [1, LAYERS].map(layers =>
    [...chain({layers, size: SIZE, bits, accuracy: 4, shared: true})])]));
const chromium = await openChromium();
await chromium.evaluate(prepare, {binaries: BINARIES, models, size: SIZE, layers: LAYERS});
for (const bits of numbers(options.bits)) {
    for (const M of numbers(options.rows)) {
        const times = {avx2: [], relaxed: [], plain: []}, runs = Math.ceil(320 / (M + 1));
        for (let round = -1; round < Number(options.rounds); round++) { /* the first one makes V8 compile it well */
            const took = {avx2: native(bits, M)};
            for (const binary in BINARIES) {
                took[binary] = await chromium.evaluate(o => timed(o), {binary, bits, M, runs: round < 0 ? 10 * runs : runs});
            }
            if (round >= 0) for (const name in took) times[name].push(took[name]);
        }
        for (const [name, us] of Object.entries(times)) {
            const ratios = us.map((t, i) => t / times.avx2[i]);
            const [low, high] = [Math.min(...ratios), Math.max(...ratios)].map(r => r.toFixed(2));
            console.log(`${bits} bits, M ${M}, ${name}: ${median(us).toFixed(0)} us, ${median(ratios).toFixed(2)} (${low} to ${high})`);
        }
    }
}
await chromium.stop();
