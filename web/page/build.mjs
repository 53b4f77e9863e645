// Builds the page in build/page from the package in build/web: node web/page/build.mjs, with the packages of
// web/package.json on NODE_PATH; tools/web-build.sh calls it.
import {createHash} from 'node:crypto';
import {copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';

const here = dirname(fileURLToPath(import.meta.url)), root = join(here, '../..');
const dist = join(root, 'build/web/dist'), out = join(root, 'build/page');
const {build} = createRequire(import.meta.url)('esbuild'); // finds packages on NODE_PATH, as import does not

const shared = {bundle: true, format: 'esm', target: 'es2022', minify: !process.env.DIBIT_READABLE, legalComments: 'none',
                logLevel: 'warning', logOverride: {'ignored-bare-import': 'silent'}, outdir: out};
rmSync(out, {recursive: true, force: true});
mkdirSync(out, {recursive: true});
await build({
    ...shared, splitting: true, chunkNames: 'chunk-[hash]', entryPoints: ['main', 'job'].map(name => join(here, `${name}.ts`)),
    /* The tokenizer is in the package's worker. */
    external: ['@huggingface/*'],
    alias: {'dibit': join(dist, 'index.js'), ...Object.fromEntries(['engine', 'ort', 'verify'].map(name => [`dibit/${name}`, join(dist, `${name}.js`)]))},
});
for (const name of ['index.html', 'page.css', 'icon.svg']) copyFileSync(join(here, name), join(out, name));
for (const name of ['worker.js', 'dibit.wasm', 'dibit-relaxed.wasm']) copyFileSync(join(dist, name), join(out, name));

const files = Object.fromEntries(readdirSync(out).sort().map(name =>
    [name === 'index.html' ? './' : name, createHash('sha256').update(readFileSync(join(out, name))).digest('hex').slice(0, 16)]));
await build({...shared, entryPoints: [join(here, 'sw.ts')], define: {DIBIT_PAGE_FILES: JSON.stringify(files)}});
