// Serves the page and what lies beside it: node web/serve.mjs [--host H] [--port N] [--plain], after tools/web-build.sh.
// Ranges and ETags, so that downloads go on and caches hold; the headers that isolate the page from other origins,
// but for --plain. `make web` runs it, and the page's tests have it in their process.
import {createReadStream} from 'node:fs';
import {stat} from 'node:fs/promises';
import {createServer} from 'node:http';
import {dirname, extname, join, resolve, sep} from 'node:path';
import {pipeline} from 'node:stream';
import {fileURLToPath, pathToFileURL} from 'node:url';
import {parseArgs} from 'node:util';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
/** Addresses, and the folders or files that they stand for: the longest that fits counts. */
export const PAGE = {'/': 'build/page', '/models/': 'models', '/peer/': 'build/peer/node_modules/onnxruntime-web/dist'};

const TYPES = {'.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.mjs': 'text/javascript', '.css': 'text/css',
               '.svg': 'image/svg+xml', '.json': 'application/json', '.wasm': 'application/wasm'};
const ISOLATION = {'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp',
                   'cross-origin-resource-policy': 'same-origin'};

/* The file of an address, or undefined where it leaves the folder that it begins in. */
function pathOf(places, address) {
    const prefix = Object.keys(places).filter(p => address.startsWith(p)).sort((a, b) => b.length - a.length)[0];
    if (prefix === undefined || address.includes('\0')) return undefined;
    const folder = resolve(root, places[prefix]), path = resolve(folder, `.${sep}${address.slice(prefix.length)}`);
    return path === folder || path.startsWith(folder + sep) ? path : undefined;
}

async function find(places, url) {
    let path;
    try {
        path = pathOf(places, decodeURIComponent(new URL(url, 'http://x').pathname));
    } catch {
        return undefined;
    }
    let info = path && await stat(path).catch(() => undefined);
    if (info?.isDirectory()) info = await stat(path = join(path, 'index.html')).catch(() => undefined);
    return info?.isFile() ? {path, size: info.size, tag: `"${info.size.toString(36)}-${Math.round(info.mtimeMs).toString(36)}"`}
        : undefined;
}

/* One range of bytes, [start, end]; null for the whole file; undefined where the file has no such bytes. */
function rangeOf(header, size) {
    const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
    if (!from && !to) return null;
    const start = from ? Number(from) : Math.max(0, size - Number(to));
    const end = from && to ? Math.min(Number(to), size - 1) : size - 1;
    return start <= end ? [start, end] : undefined;
}

async function answer(places, headers, request, response) {
    if (request.method !== 'GET' && request.method !== 'HEAD') return void response.writeHead(405, {allow: 'GET, HEAD'}).end();
    const file = await find(places, request.url);
    if (!file) return void response.writeHead(404, {...headers, 'content-type': 'text/plain'}).end('There is no such file.\n');
    const {path, size, tag} = file;
    headers = {...headers, etag: tag, 'accept-ranges': 'bytes', 'cache-control': 'no-cache', 'x-content-type-options': 'nosniff',
               'content-type': TYPES[extname(path)] ?? 'application/octet-stream'};
    if (request.headers['if-none-match'] === tag) return void response.writeHead(304, headers).end();
    const range = rangeOf(request.headers.range, size);
    if (range === undefined) return void response.writeHead(416, {...headers, 'content-range': `bytes */${size}`}).end();
    const [start, end] = range ?? [0, size - 1];
    response.writeHead(range ? 206 : 200, {...headers, 'content-length': end - start + 1,
                                           ...(range && {'content-range': `bytes ${start}-${end}/${size}`})});
    if (request.method === 'HEAD' || size === 0) return void response.end();
    pipeline(createReadStream(path, {start, end}), response, () => {}); /* whoever left needs no answer */
}

/** Starts a server: {url, close()}. `places` as PAGE, from the repository's root; port 0 is any that is free.
 * `first(request, response)` may take requests, and says so. */
export async function serve({places = PAGE, isolated = true, host = '127.0.0.1', port = 0, first = () => false} = {}) {
    const server = createServer((request, response) => {
        if (first(request, response)) return;
        answer(places, isolated ? ISOLATION : {}, request, response).catch(() => response.destroy());
    });
    await new Promise((listening, failed) => server.once('error', failed).listen(port, host, listening));
    return {
        url: `http://${host}:${server.address().port}/`,
        close: () => new Promise(closed => {
            server.close(closed);
            server.closeAllConnections();
        }),
    };
}

async function main() {
    const {values} = parseArgs({options: {
        host: {type: 'string', default: '127.0.0.1'}, port: {type: 'string', default: '8080'}, plain: {type: 'boolean', default: false},
    }});
    const options = {host: values.host, port: Number(values.port), isolated: !values.plain};
    const {url} = await serve(options).catch(e => {
        if (e.code === 'EADDRINUSE') return serve({...options, port: 0});
        throw e;
    });
    console.log(`The page is at ${url} (Ctrl-C ends it)`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
    main().catch(e => {
        console.error(`the page cannot be served: ${e.message}`);
        process.exit(1);
    });
}
