// A web site for tests in browsers: files by symbolic links, with Range; and pages that are written to it.
import {createReadStream, mkdirSync, rmSync, statSync, symlinkSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:http';
import {basename, dirname, extname, join} from 'node:path';

import {built, model, root} from './support.mjs';

const TYPES = {'.js': 'text/javascript', '.mjs': 'text/javascript', '.html': 'text/html', '.wasm': 'application/wasm',
               '.json': 'application/json'};

export const transformers = join(root, 'build/transformers/node_modules/@huggingface/transformers');

/* What scripts import by name: the package's, and transformers.js on Dibit. */
const IMPORTS = `<script type=importmap>${JSON.stringify({imports: {
    '@huggingface/jinja': '/packages/@huggingface/jinja/dist/index.js',
    '@huggingface/tokenizers': '/packages/@huggingface/tokenizers/dist/tokenizers.mjs',
    '@huggingface/transformers': '/transformers/dist/transformers.web.js',
    'onnxruntime-web/webgpu': '/dibit/ort.js',
    'onnxruntime-common': '/packages/onnxruntime-common/dist/esm/index.js',
}})}</script>`;

export const EMPTY_PAGE = `<!doctype html><title>dibit</title>${IMPORTS}`;

export const site = join(root, 'build/web/tests/site');

/** Puts a file or a folder there, and gives its path on the site. */
export function link(target, name) {
    rmSync(join(site, name), {recursive: true, force: true});
    mkdirSync(join(site, name, '..'), {recursive: true});
    symlinkSync(target, join(site, name));
    return `/${name}`;
}

/** The path on the site of a model of a folder of its own. */
export const linkCase = path => `${link(dirname(path), `cases/${basename(dirname(path))}`)}/${basename(path)}`;

export function writePage(name, html) {
    mkdirSync(join(site, name, '..'), {recursive: true});
    rmSync(join(site, name), {force: true});
    writeFileSync(join(site, name), html);
}

function sendFile(request, response) {
    const path = join(site, decodeURIComponent(new URL(request.url, 'http://x').pathname));
    const stat = statSync(path, {throwIfNoEntry: false});
    if (!stat?.isFile()) return void response.writeHead(404).end();
    const [, from, to] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? [];
    const start = Number(from ?? 0), end = Math.min(Number(to || stat.size - 1), stat.size - 1);
    response.writeHead(from === undefined ? 200 : 206, {
        'content-type': TYPES[extname(path)] ?? 'application/octet-stream', 'content-length': end - start + 1,
        'content-range': `bytes ${start}-${end}/${stat.size}`,
    });
    if (request.method === 'HEAD' || end < start) response.end();
    else createReadStream(path, {start, end}).pipe(response);
}

/** {url, stop()}: the site, on which `dibit` is the package, `model` the shipped model, and blank.html nothing. With
 * `isolated` its pages are cross-origin isolated. `answer(request, response)` may take requests before it. */
export async function serveSite({isolated = false, answer = () => false} = {}) {
    link(built, 'dibit');
    link(model, 'model');
    link(join(root, 'build/web/node_modules'), 'packages');
    link(transformers, 'transformers');
    writePage('blank.html', EMPTY_PAGE);
    const server = createServer((request, response) => {
        if (isolated) {
            response.setHeader('cross-origin-opener-policy', 'same-origin');
            response.setHeader('cross-origin-embedder-policy', 'require-corp');
        }
        if (!answer(request, response)) sendFile(request, response);
    });
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
    return {
        url: `http://127.0.0.1:${server.address().port}/`,
        async stop() {
            server.closeAllConnections();
            await new Promise(resolve => server.close(resolve));
        },
    };
}
