// Dibit and onnxruntime-web (its own package, and under transformers.js) in headless Chromium, in one page and in turn:
//     node bench/web/run.mjs [--only chain,model,start] [--device wasm|webgpu] [--rounds N] [--markdown FILE]
//         [--json FILE]
// prints tables, writes build/bench-web.json, and with --markdown puts the tables between that file's marks. Installs what it
// compares with into build/bench-web. WebGPU is the machine's GPU, or SwiftShader where there is none.
import {execFileSync} from 'node:child_process';
import {cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {cpus, tmpdir} from 'node:os';
import {dirname, join, relative} from 'node:path';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';

import {layOut} from '../../tools/transformers_layout.mjs';
import {serve} from '../../web/serve.mjs';
import {chain} from './chain.mjs';

const here = dirname(fileURLToPath(import.meta.url)), root = join(here, '../..'), work = join(root, 'build/bench-web');
const packages = join(work, 'node_modules'), transformers = join(packages, '@huggingface/transformers');
const model = join(root, 'models/smollm2-135m-instruct-2bit');
const {values: options} = parseArgs({options: {
    only: {type: 'string', default: 'chain,model,start'}, device: {type: 'string'}, rounds: {type: 'string', default: '9'},
    markdown: {type: 'string'}, json: {type: 'string', default: join(root, 'build/bench-web.json')},
}});
const rounds = Number(options.rounds), wanted = options.only.split(',');
const SIZE = 2048, PROMPT = 'The sky is blue because';

/* ---- What is needed ---- */

function install() {
    const list = readFileSync(join(here, 'package.json'), 'utf8'), copy = join(work, 'package.json');
    if (existsSync(join(work, 'complete')) && readFileSync(copy, 'utf8') === list) return;
    mkdirSync(work, {recursive: true});
    writeFileSync(copy, list);
    execFileSync('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts', '--loglevel=error'], {cwd: work, stdio: 'inherit'});
    writeFileSync(join(work, 'complete'), '');
}

/* transformers.js with Dibit, and as it comes. */
async function bundle(require) {
    const {build} = require('esbuild');
    /* transformers.js has an onnxruntime-web of its own. */
    const own = join(transformers, 'node_modules/onnxruntime-web');
    const peer = join(existsSync(own) ? own : join(packages, 'onnxruntime-web'), 'dist');
    const common = {
        entryPoints: [join(transformers, 'dist/transformers.web.js')], bundle: true, format: 'esm', minify: true, logLevel: 'error',
        conditions: ['browser'], nodePaths: [packages, join(transformers, 'node_modules')],
    };
    for (const [name, ort] of [['dibit', join(root, 'build/web/dist/ort.js')], ['peer', join(peer, 'ort.webgpu.min.mjs')]]) {
        await build({...common, outfile: join(work, `lm/${name}.js`), alias: {'onnxruntime-web/webgpu': ort}});
    }
    for (const name of ['dibit.wasm', 'dibit-relaxed.wasm']) cpSync(join(root, 'build/web/dist', name), join(work, 'lm', name));
    return peer;
}

/* The shipped model as transformers.js wants it, and without what onnxruntime-web refuses of it. */
function layOutModels() {
    const folder = name => join(work, 'models', name);
    if (existsSync(join(folder('shipped'), 'onnx/model_q2.onnx'))) return;
    const steps = ['copy', 'float32', 'plain'].map(name => join(work, name)); /* a copy: onnx takes no file with two names */
    cpSync(model, steps[0], {recursive: true});
    const python = join(execFileSync(join(root, 'tools/python-env.sh'), {encoding: 'utf8'}).trim(), 'python3');
    execFileSync(python, [join(root, 'tools/recipe/float32_variant.py'), steps[0], steps[1]], {stdio: 'inherit'});
    execFileSync(python, [join(root, 'tools/recipe/plain_model.py'), steps[1], steps[2]], {stdio: 'inherit'});
    layOut(steps[2], folder('plain'));
    layOut(steps[0], folder('shipped'));
    for (const step of steps) rmSync(step, {recursive: true});
}

/* ---- The browser ---- */

const flags = ['--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan',
               ...['/dev/nvidia0', '/dev/dri/renderD128'].some(existsSync) ? [] : ['--use-webgpu-adapter=swiftshader']];

/* Peak resident memory, in MB, of the processes that draw pages and use the GPU, of the browser with this profile. */
function peakMemory(profile) {
    const processes = readdirSync('/proc').filter(name => /^\d+$/.test(name)).map(pid => {
        try {
            return {pid, command: readFileSync(`/proc/${pid}/cmdline`, 'utf8'), status: readFileSync(`/proc/${pid}/status`, 'utf8')};
        } catch {
            return {pid, command: '', status: ''};
        }
    });
    const field = ({status}, name) => Number(new RegExp(`^${name}:\\s*(\\d+)`, 'm').exec(status)?.[1] ?? 0);
    const ours = new Set(processes.filter(p => p.command.includes(profile)).map(p => Number(p.pid)));
    for (let before = -1; before !== ours.size;) { /* and their descendants */
        before = ours.size;
        for (const p of processes) if (ours.has(field(p, 'PPid'))) ours.add(Number(p.pid));
    }
    const sum = type => processes.filter(p => ours.has(Number(p.pid)) && p.command.includes(`--type=${type}`))
        .reduce((n, p) => Math.max(n, field(p, 'VmHWM')), 0) / 1000;
    return {page: sum('renderer'), gpu: sum('gpu-process')};
}

async function inPage(chromium, base, work_, profile = mkdtempSync(join(tmpdir(), 'bench-web-')), keep = false) {
    const context = await chromium.launchPersistentContext(profile, {
        executablePath: process.env.DIBIT_CHROMIUM ?? '/usr/bin/chromium', headless: true, args: flags,
    });
    try {
        const page = await context.newPage();
        const errors = [];
        page.on('console', message => { if (message.type() === 'error') errors.push(message.text()); });
        await page.goto(`${base}index.html`);
        const result = await work_(page).catch(e => ({error: [e.message.split('\n')[0], ...errors].join('; ').slice(0, 300)}));
        return {...result, memory: peakMemory(profile)};
    } finally {
        await context.close().catch(() => {}); /* of a browser that crashed */
        if (!keep) rmSync(profile, {recursive: true, force: true});
    }
}

const call = (name, argument) => page => page.evaluate(async ([f, a]) => (await import('/engines.mjs'))[f](a), [name, argument]);

/* ---- Measurements ---- */

async function measureChains(chromium, base) {
    const rows = [];
    for (const [device, accuracy, m, layers, n] of [ /* SwiftShader takes seconds for a chain */
        ['wasm', 4, 1, 8, rounds], ['wasm', 4, 16, 8, rounds], ['wasm', 0, 1, 8, rounds],
        ['webgpu', 4, 1, 4, Math.min(rounds, 5)], ['webgpu', 0, 1, 4, Math.min(rounds, 5)],
    ]) {
        if ((options.device ?? device) !== device) continue;
        writeFileSync(join(work, 'chain.onnx'), chain({layers, size: SIZE, accuracy}));
        const result = await inPage(chromium, base, call('compareChain', {
            url: '/work/chain.onnx', device, rows: m, size: SIZE, layers, rounds: n,
        }));
        rows.push({device, accuracy, m, ...result});
        console.error(`chain, ${device}, accuracy_level ${accuracy}, M = ${m}:`, result.error ?? result.medians, result.cosine ?? '');
    }
    return rows;
}

async function measureModels(chromium, base) {
    const rows = [];
    for (const [device, name, tokens, n] of [['wasm', 'shipped', 24, 3], ['wasm', 'plain', 24, 3], ['webgpu', 'plain', 4, 2]]) {
        if ((options.device ?? device) !== device) continue;
        const result = await inPage(chromium, base, call('compareModel', {name, device, prompt: PROMPT, tokens, rounds: n}));
        rows.push({device, name, ...result});
        console.error(`model ${name}, ${device}:`, result.error ?? [result.dibit, result.peer].map(e => e.error ?? e.rate));
    }
    return rows;
}

async function measureStarts(chromium, base) {
    const rows = [], empty = (await inPage(chromium, base, async () => ({}))).memory.page;
    for (const engine of ['dibit, its own API', 'dibit', 'onnxruntime-web']) {
        const cold = [], warm = [];
        for (let i = 0; i < 3; i++) {
            const profile = mkdtempSync(join(tmpdir(), 'bench-web-'));
            const once = () => inPage(chromium, base, async page => ({
                ms: await call('firstToken', {engine, name: 'plain', device: 'wasm', prompt: PROMPT})(page),
            }), profile, true);
            try {
                cold.push(await once());
                warm.push(await once());
            } finally {
                rmSync(profile, {recursive: true, force: true});
            }
        }
        rows.push({engine, cold, warm});
        console.error(`start, ${engine}:`, cold.map(r => r.error ?? r.ms), warm.map(r => r.error ?? r.ms), cold.map(r => r.memory.page));
    }
    return {rows, empty};
}

/* ---- The report ---- */

const median = list => [...list].sort((a, b) => a - b)[list.length >> 1];
const spread = list => `± ${Math.round(50 * (Math.max(...list) - Math.min(...list)) / median(list))} %`;
const line = cells => `| ${cells.join(' | ')} |`;

function report({browser, chains, models, starts}) {
    const out = [`${cpus()[0].model.trim()}, ${cpus().length} cores; Chromium ${browser}, one thread; WebGPU on ${
        flags.length > 3 ? 'SwiftShader' : 'the GPU'}; medians, ± half the range.`, ''];
    if (chains) {
        out.push('| MatMulNBits 2048 x 2048, 2 bits, block 32, zero points; ms a layer | Dibit | onnxruntime-web 1.30 | times as fast |',
                 '|---|---|---|---|');
        for (const r of chains) {
            const what = `${r.device}, \`accuracy_level\` ${r.accuracy}, M = ${r.m}`;
            out.push(r.error ? line([what, r.error, '', '']) : line([what, ...[r.dibit, r.peer].map(t => `${median(t).toFixed(2)} ${spread(t)}`),
                                                                     (median(r.peer) / median(r.dibit)).toFixed(1)]));
        }
        out.push('');
    }
    if (models) {
        out.push('| transformers.js 4.3.1 with the shipped model, tokens/s | on Dibit | on its onnxruntime-web | times as fast |',
                 '|---|---|---|---|');
        for (const r of models) {
            const what = `${r.device}, ${r.name === 'plain' ? 'float32 with a plain embedding' : 'as shipped'}`;
            const cell = e => e.error ?? `${e.rate.toFixed(2)} ${spread(e.rates)}`;
            out.push(r.error ? line([what, r.error, '', '']) : line([what, cell(r.dibit), cell(r.peer),
                                                                     r.peer.error ? '' : (r.dibit.rate / r.peer.rate).toFixed(1)]));
        }
        out.push('');
    }
    if (starts) {
        out.push('| from the navigation to the first token, wasm, float32 with a plain embedding | cold cache, s | warm, s | peak memory of the page\'s process, cold and warm, MB |',
                 '|---|---|---|---|');
        const name = {dibit: 'transformers.js on Dibit', 'dibit, its own API': 'Dibit, `load()`', 'onnxruntime-web': 'transformers.js on onnxruntime-web'};
        for (const {engine, cold, warm} of starts.rows) {
            const failed = [...cold, ...warm].find(r => r.error)?.error;
            const seconds = runs => (median(runs.map(r => r.ms)) / 1000).toFixed(2), mb = runs => Math.round(median(runs.map(r => r.memory.page)));
            out.push(line([name[engine], ...(failed ? [failed, '', ''] : [seconds(cold), seconds(warm), `${mb(cold)}, ${mb(warm)}`])]));
        }
        out.push(line(['an empty page', '', '', Math.round(starts.empty)]));
        out.push('');
    }
    return out.join('\n');
}

async function main() {
    execFileSync(join(root, 'tools/web-build.sh'), {stdio: ['ignore', 'ignore', 'inherit']});
    install();
    const require = createRequire(join(root, 'build/web/package.json'));
    const {chromium} = require('playwright-core');
    const peer = await bundle(require);
    layOutModels();
    writeFileSync(join(work, 'index.html'), '<!doctype html><title>benchmark</title>');
    cpSync(join(here, 'engines.mjs'), join(work, 'engines.mjs'));
    const server = await serve({places: {
        '/': relative(root, work), '/work/': relative(root, work), '/lm/': relative(root, join(work, 'lm')),
        '/models/': relative(root, join(work, 'models')), '/dibit/': 'build/web/dist',
        '/onnxruntime-web/': relative(root, join(packages, 'onnxruntime-web/dist')), '/transformers-ort/': relative(root, peer),
    }});
    try {
        const results = {browser: '', date: new Date().toISOString().slice(0, 10)};
        const browser = await chromium.launch({executablePath: process.env.DIBIT_CHROMIUM ?? '/usr/bin/chromium', args: flags});
        results.browser = browser.version();
        await browser.close();
        if (wanted.includes('chain')) results.chains = await measureChains(chromium, server.url);
        if (wanted.includes('model')) results.models = await measureModels(chromium, server.url);
        if (wanted.includes('start')) results.starts = await measureStarts(chromium, server.url);
        writeFileSync(options.json, JSON.stringify(results, null, 1));
        const text = report(results);
        console.log(text);
        if (options.markdown) {
            const page = readFileSync(options.markdown, 'utf8');
            const marks = /<!-- web table -->[^]*<!-- \/web table -->/;
            if (!marks.test(page)) throw new Error(`${options.markdown} has no <!-- web table -->`);
            writeFileSync(options.markdown, page.replace(marks, () => `<!-- web table -->\n${text}<!-- /web table -->`));
        }
    } finally {
        await server.close();
    }
}

await main();
