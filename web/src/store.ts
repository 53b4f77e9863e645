/* What has come over the network, kept in the browser's Cache API: chunks of a file under one name, each a
 * response of its own, so that a download that was cut goes on where it ended, and a model that is here loads
 * without a network. Entries of a file at URL u:
 *
 *     <u as a component>/meta     its size, its ETag, when it was last opened
 *     <u as a component>/N        bytes [N * CHUNK_BYTES, ...) of it
 *     <u as a component>/text     of a model's small files instead: the text as JSON; null: there is no such file
 *
 * A file whose size or ETag has changed on the server begins anew. */
import {HttpInput, HttpOptions, Unreachable, Version, explain} from './http.js';
import type {Input} from './input.js';

/** What Deno and pages have as `caches`. */
export interface CachesLike {
    open(name: string): Promise<CacheLike>;
}

export interface CacheLike {
    match(url: string): Promise<Response | undefined>;
    put(url: string, response: Response): Promise<void>;
    delete(url: string): Promise<boolean>;
    keys(): Promise<readonly {url: string}[]>;
}

export interface StoreOptions {
    /** In place of globalThis.caches. */
    caches?: CachesLike;
    /** The cache's name; default 'dibit'. */
    name?: string;
}

/** A file that is kept, or a part of one. */
export interface StoredFile {
    url: string;
    size: number;
    storedBytes: number;
    /** Milliseconds since 1970. */
    opened: number;
}

interface Meta extends Version {
    url: string;
    opened: number;
}

export const CHUNK_BYTES = 8 << 20;
const PREFIX = 'https://dibit.invalid/'; /* keys have to be URLs; nobody ever asks for these */

function keyOf(url: string, part: string | number): string {
    return `${PREFIX}${encodeURIComponent(url)}/${part}`;
}

/** null where nothing is to be kept, or nothing can be: pages of http and private windows have no cache. */
export async function openStore(wanted: boolean | StoreOptions | undefined): Promise<Store | null> {
    if (!wanted) return null;
    const {caches, name}: StoreOptions = wanted === true ? {} : wanted;
    const all = caches ?? (globalThis as {caches?: CachesLike}).caches;
    if (!all) return null;
    try {
        return new Store(await all.open(name ?? 'dibit'));
    } catch {
        return null;
    }
}

/** What is kept; nothing where there is no cache. */
export async function storedFiles(options: StoreOptions = {}): Promise<StoredFile[]> {
    return await (await openStore(options))?.files() ?? [];
}

/** Forgets a file, or, without a URL, all of them. */
export async function evict(url?: string, options: StoreOptions = {}): Promise<void> {
    await (await openStore(options))?.evict(url);
}

export class Store {
    /* Once the browser gives no more room, the rest is loaded without being kept. */
    private isFull = false;

    constructor(private readonly cache: CacheLike) {}

    async files(): Promise<StoredFile[]> {
        const files = new Map<string, StoredFile & {chunks: number[]}>();
        for (const {url: key} of await this.cache.keys()) {
            const [name, part] = key.slice(PREFIX.length).split('/'), url = decodeURIComponent(name);
            if (part === 'text') continue;
            const file = files.get(url) ?? {url, size: 0, storedBytes: 0, opened: 0, chunks: []};
            files.set(url, file);
            if (part !== 'meta') file.chunks.push(Number(part));
        }
        for (const file of files.values()) {
            const meta = await this.meta(file.url);
            file.size = meta?.size ?? 0;
            file.opened = meta?.opened ?? 0;
            file.storedBytes = file.chunks.reduce((n, i) => n + chunkBytes(file.size, i), 0);
        }
        return [...files.values()].map(({chunks: _, ...file}) => file);
    }

    async evict(url?: string): Promise<void> {
        const prefix = url === undefined ? PREFIX : keyOf(url, '');
        for (const {url: key} of await this.cache.keys()) {
            if (key.startsWith(prefix)) await this.cache.delete(key);
        }
        this.isFull = false;
    }

    private async json<T>(key: string): Promise<T | undefined> {
        try {
            return await (await this.cache.match(key))?.json() as T;
        } catch {
            return undefined;
        }
    }

    private async meta(url: string): Promise<Meta | null> {
        return await this.json<Meta>(keyOf(url, 'meta')) ?? null;
    }

    /** Whether the file is here, or a part of it. */
    async knows(url: string): Promise<boolean> {
        return await this.meta(url) !== null;
    }

    /** A small file as the server had it last; null: it had none; undefined: it was not asked. */
    text(url: string): Promise<string | null | undefined> {
        return this.json(keyOf(url, 'text'));
    }

    putText(url: string, text: string | null): Promise<void> {
        return this.put(keyOf(url, 'text'), JSON.stringify(text));
    }

    /** The file through the store. */
    async open(url: string, options: HttpOptions, fromNetwork: () => Promise<Input>): Promise<Input> {
        const known = await this.meta(url);
        let network: Input;
        try {
            network = await fromNetwork();
        } catch (e) {
            if (!known || !(e instanceof Unreachable)) explain(e);
            network = HttpInput.known(url, known, options); /* offline: perhaps all is here */
        }
        if (!(network instanceof HttpInput)) return network;
        const {size, tag} = network;
        if (known && (known.size !== size || known.tag !== tag)) await this.evict(url);
        await this.put(keyOf(url, 'meta'), JSON.stringify({url, size, tag, opened: Date.now()} satisfies Meta));
        return new StoredInput(network, this, options);
    }

    /** The chunk's bytes, or null when it is not here, or not whole. */
    async chunk(url: string, size: number, index: number): Promise<Uint8Array | null> {
        const key = keyOf(url, index), response = await this.cache.match(key).catch(() => undefined);
        if (!response) return null;
        const bytes = new Uint8Array(await response.arrayBuffer());
        if (bytes.length === chunkBytes(size, index)) return bytes;
        await this.cache.delete(key);
        return null;
    }

    async has(url: string, index: number): Promise<boolean> {
        return await this.cache.match(keyOf(url, index)).catch(() => undefined) !== undefined;
    }

    async putChunk(url: string, index: number, bytes: Uint8Array): Promise<void> {
        await this.put(keyOf(url, index), bytes as BodyInit);
    }

    private async put(key: string, body: BodyInit): Promise<void> {
        if (this.isFull) return;
        try {
            await this.cache.put(key, new Response(body));
        } catch {
            this.isFull = true;
        }
    }
}

function chunkBytes(size: number, index: number): number {
    return Math.max(0, Math.min(CHUNK_BYTES, size - index * CHUNK_BYTES));
}

/** A file of which whole chunks are loaded, and kept. */
class StoredInput implements Input {
    readonly seekable = true;
    readonly name: string;
    readonly size: number;

    constructor(private readonly network: HttpInput, private readonly store: Store,
                private readonly options: HttpOptions) {
        this.name = network.name;
        this.size = network.size;
    }

    async *open(from: number, length: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
        const end = Math.min(this.size, from + length);
        let loader: ChunkLoader | null = null;
        try {
            for (let at = from; at < end;) {
                signal.throwIfAborted();
                const index = Math.floor(at / CHUNK_BYTES), begin = index * CHUNK_BYTES;
                let chunk = await this.store.chunk(this.name, this.size, index);
                if (chunk) {
                    this.options.onBytes?.(this, chunk.length);
                } else {
                    if (!loader || loader.next > index || this.network.seekable && loader.next < index) {
                        loader?.stop();
                        loader = new ChunkLoader(this.network, await this.firstToLoad(index), end, signal);
                    }
                    chunk = await this.load(loader, index);
                }
                yield chunk.subarray(at - begin);
                at = begin + chunk.length;
            }
        } finally {
            loader?.stop();
        }
    }

    /** A server without Range sends all from the beginning: what it sends on the way is kept, too. */
    private async firstToLoad(index: number): Promise<number> {
        if (this.network.seekable) return index;
        let first = 0;
        while (first < index && await this.store.has(this.name, first)) first++;
        return first;
    }

    private async load(loader: ChunkLoader, index: number): Promise<Uint8Array> {
        for (;;) {
            const at = loader.next, chunk = await loader.load();
            await this.store.putChunk(this.name, at, chunk);
            if (at === index) return chunk;
        }
    }

    beside(location: string): Promise<Input> {
        return this.network.beside(location);
    }

    close(): void {
        this.network.close();
    }
}

/** Chunks one after the other from one stream. */
class ChunkLoader {
    private readonly pieces: AsyncIterator<Uint8Array>;
    private rest: Uint8Array = new Uint8Array(0);

    constructor(private readonly network: HttpInput, public next: number, end: number, signal: AbortSignal) {
        const begin = next * CHUNK_BYTES, stop = Math.ceil(end / CHUNK_BYTES) * CHUNK_BYTES;
        this.pieces = network.open(begin, stop - begin, signal)[Symbol.asyncIterator]();
    }

    async load(): Promise<Uint8Array> {
        const {network} = this, chunk = new Uint8Array(chunkBytes(network.size, this.next));
        let done = 0;
        while (done < chunk.length) {
            if (this.rest.length === 0) {
                const {value, done: ended} = await this.pieces.next();
                if (ended) throw new Unreachable(`the connection for ${network.name} ended at byte ${
                    this.next * CHUNK_BYTES + done} of ${network.size}`);
                this.rest = value;
            }
            const part = this.rest.subarray(0, chunk.length - done);
            chunk.set(part, done);
            done += part.length;
            this.rest = this.rest.subarray(part.length);
        }
        this.next++;
        return chunk;
    }

    stop(): void {
        void this.pieces.return?.();
    }
}

