// Builds the npm package's scripts: node web/build.mjs [OUT] [--sizes], with the packages of web/package.json on NODE_PATH. OUT
// (build/web) gets package.json and, in dist/, modules, CommonJS for Node and the worker; tools/web-build.sh adds binaries and types.
// --sizes prints what a page downloads.
import {copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync} from 'node:fs';
import {createRequire} from 'node:module';
import {basename, dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {parseArgs} from 'node:util';
import {brotliCompressSync, gzipSync} from 'node:zlib';

const web = dirname(fileURLToPath(import.meta.url));
const {values: options, positionals} = parseArgs({allowPositionals: true, options: {sizes: {type: 'boolean'}}});
const out = resolve(positionals[0] ?? join(web, '../build/web')), dist = join(out, 'dist');
const require = createRequire(import.meta.url); // finds packages on NODE_PATH, as import does not
const {build} = require('esbuild');

const {version} = JSON.parse(readFileSync(join(web, 'package.json'), 'utf8'));
const source = name => join(web, 'src', `${name}.ts`);
/* onnxruntime-common is taken in: Dibit and onnxruntime-web can then be used side by side in one page, each with
 * backends of its own. */
const external = ['@huggingface/jinja', '@huggingface/tokenizers'];
const shared = {
    bundle: true, target: 'es2022', minify: !process.env.DIBIT_READABLE, logLevel: 'warning', metafile: true,
    legalComments: 'none', outdir: dist, external, define: {DIBIT_VERSION: JSON.stringify(version)},
    /* What is found through NODE_PATH is taken by its "main", which is CommonJS. */
    alias: {'onnxruntime-common': join(dirname(require.resolve('onnxruntime-common')), '../esm/index.js')},
};
const modules = {
    ...shared, format: 'esm', platform: 'neutral', splitting: true, chunkNames: 'chunk-[hash]',
    entryPoints: ['index', 'node', 'ort', 'verify', 'engine'].map(source),
};
/* Import maps do not hold in workers: everything is in one file. */
const worker = {...shared, format: 'esm', platform: 'neutral', external: [], entryPoints: [source('worker')],
                mainFields: ['module', 'main']};
const commonJs = {
    ...shared, format: 'cjs', platform: 'node', outExtension: {'.js': '.cjs'},
    entryPoints: ['node', 'ort', 'verify'].map(source), define: {...shared.define, 'import.meta.url': '__dibit_url'},
    banner: {js: 'var __dibit_url=require("url").pathToFileURL(__filename).href;'},
};

/* Bytes of some files, plain and packed. */
const packed = new Map();
function sizes(files) {
    const sums = [0, 0, 0];
    for (const f of files) {
        const key = f.toString('latin1');
        if (!packed.has(key)) packed.set(key, [f.length, gzipSync(f, {level: 9}).length, brotliCompressSync(f).length]);
        packed.get(key).forEach((bytes, i) => (sums[i] += bytes));
    }
    return sums;
}

/* A file of dist with those that it imports before it runs. */
function closure(outputs, name, all = new Set()) {
    const path = Object.keys(outputs).find(p => p.endsWith(`dist/${name}`));
    if (all.has(path)) return all;
    all.add(path);
    for (const {path: next, kind} of outputs[path].imports) {
        if (kind === 'import-statement' && next in outputs) closure(outputs, basename(next), all);
    }
    return all;
}

/* The larger binary counts; the tokenizer packages do not. */
async function printSizes({outputs}) {
    const slim = await build({...worker, external, write: false});
    const file = name => readFileSync(join(dist, name));
    const scripts = name => [...closure(outputs, name)].map(path => file(basename(path)));
    const engine = ['dibit.wasm', 'dibit-relaxed.wasm'].map(file).sort((a, b) => gzipSync(b).length - gzipSync(a).length)[0];
    const slimWorker = Buffer.from(slim.outputFiles[0].contents);
    const every = new Set(['index', 'ort', 'verify', 'engine'].flatMap(name => [...closure(outputs, `${name}.js`)]));
    const rows = {
        'engine, either of the two binaries': [engine],
        'scripts of `dibit`, page and worker': [...scripts('index.js'), slimWorker],
        'scripts of `dibit/ort`': scripts('ort.js'),
        'all in all: engine and every script': [engine, slimWorker, ...[...every].map(path => file(basename(path)))],
    };
    const kb = bytes => String(Math.round(bytes / 1000)).padStart(5);
    console.log('| KB (1,000 bytes) | plain | gzip -9 | brotli |\n|---|---|---|---|');
    for (const [what, files] of Object.entries(rows)) console.log(`| ${what} | ${sizes(files).map(kb).join(' | ')} |`);
}

mkdirSync(dist, {recursive: true});
const {metafile} = await build(modules);
for (const name of readdirSync(dist)) { /* of earlier builds */
    if (name.startsWith('chunk-') && !Object.keys(metafile.outputs).some(path => path.endsWith(`/${name}`))) rmSync(join(dist, name));
}
await build(worker);
await build(commonJs);
for (const name of ['package.json', 'README.md']) {
    if (existsSync(join(web, name))) copyFileSync(join(web, name), join(out, name));
}
if (options.sizes) await printSizes(metafile);
