/* The service worker: keeps the page's own files, so that it opens without a network; models are kept by the
 * package itself. With a network what it has to say is the server's: files of two versions never mix. */
import {hasRelaxedSimd} from '../src/binary.js';

/* build.mjs sets it: the page's files. It changes with their content, and the browser then installs anew. */
declare const DIBIT_PAGE_FILES: Record<string, string>;

/* What lib.dom.d.ts does not have. */
interface Waiting extends Event {
    waitUntil(work: Promise<unknown>): void;
}
interface Fetching extends Event {
    request: Request;
    respondWith(response: Promise<Response>): void;
}
interface ServiceWorkerScope {
    addEventListener(type: 'install' | 'activate', listener: (event: Waiting) => void): void;
    addEventListener(type: 'fetch', listener: (event: Fetching) => void): void;
    skipWaiting(): Promise<void>;
    clients: {claim(): Promise<void>};
    location: Location;
}
const scope = globalThis as unknown as ServiceWorkerScope;

const CACHE = 'dibit-page', unused = hasRelaxedSimd() ? 'dibit.wasm' : 'dibit-relaxed.wasm';
const urls = Object.keys(DIBIT_PAGE_FILES).filter(name => name !== unused).map(name => new URL(name, scope.location.href).href);

/* The address that a file is kept under. */
function keyOf(url: string): string {
    const key = new URL(url);
    key.search = key.hash = '';
    return key.href;
}

async function install(): Promise<void> {
    const cache = await caches.open(CACHE);
    await cache.addAll(urls.map(url => new Request(url, {cache: 'no-cache'})));
    for (const {url} of await cache.keys()) {
        if (!urls.includes(url)) await cache.delete(url);
    }
    await scope.skipWaiting();
}

async function answer(request: Request, key: string): Promise<Response> {
    const cache = await caches.open(CACHE);
    try {
        const response = await fetch(request);
        if (response.ok && response.status === 200) await cache.put(key, response.clone());
        return response;
    } catch (error) {
        const kept = await cache.match(key);
        if (!kept) throw error;
        return kept;
    }
}

scope.addEventListener('install', event => event.waitUntil(install()));
scope.addEventListener('activate', event => event.waitUntil(scope.clients.claim()));
scope.addEventListener('fetch', event => {
    const key = keyOf(event.request.url);
    if (event.request.method === 'GET' && urls.includes(key)) event.respondWith(answer(event.request, key));
});
