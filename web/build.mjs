// Builds the npm package: node web/build.mjs OUT, with the packages of web/package.json on NODE_PATH. OUT/dist
// gets the modules (ESM in shared chunks, CommonJS each by itself); the binaries and types are not made here.
import {copyFileSync, existsSync, mkdirSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';

const out = process.argv[2];
if (!out) {
    console.error('usage: node web/build.mjs OUT');
    process.exit(2);
}
const require = createRequire(import.meta.url); // finds packages on NODE_PATH, as import does not
const {build} = require('esbuild');
const web = dirname(fileURLToPath(import.meta.url));
const entryPoints = ['index', 'ort', 'verify', 'engine', 'worker'].map(name => join(web, 'src', `${name}.ts`))
    .filter(existsSync);
const shared = {
    entryPoints, bundle: true, target: 'es2022', platform: 'neutral', minify: !process.env.DIBIT_READABLE, sourcemap: true,
    outdir: join(out, 'dist'), packages: 'external', logLevel: 'warning',
};
mkdirSync(join(out, 'dist'), {recursive: true});
await build({...shared, format: 'esm', splitting: true, chunkNames: 'chunk-[hash]'});
await build({
    ...shared, format: 'cjs', outExtension: {'.js': '.cjs'},
    define: {'import.meta.url': '__dibit_url'},
    banner: {js: 'var __dibit_url=require("url").pathToFileURL(__filename).href;'},
});
for (const name of ['package.json', 'README.md']) {
    if (existsSync(join(web, name))) copyFileSync(join(web, name), join(resolve(out), name));
}
