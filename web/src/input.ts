/* Files that models are read from, each as bytes at an offset: memory, Blobs, files of Node and Deno. Those
 * on servers are in http.ts; how the engine reads them is in source.ts. */
import {DibitError} from './wasm.js';
import {openUrl} from './http.js';
import type {Store} from './store.js';

/** A file whose size is known. */
export interface Input {
    /** For people: a URL, a path, a file's name. */
    readonly name: string;
    readonly size: number;
    /** The whole of it, where it is in memory anyway. */
    readonly bytes?: Uint8Array;
    /** Bytes can be had from anywhere; else a stream that begins later skips what is before. */
    readonly seekable: boolean;
    /** The file's bytes from `from` on, `length` of them or more, in pieces: each is gone with the next. */
    open(from: number, length: number, signal: AbortSignal): AsyncIterable<Uint8Array>;
    /** Opens a file beside this one, by its relative name. */
    beside(location: string): Promise<Input>;
    close?(): void;
}

/** A file on a server. */
export interface UrlSource {
    url: string | URL;
    /** How many bytes it has, if that is known: another size is an error. */
    size?: number;
    headers?: Record<string, string>;
}

/** Files that belong together: by relative path, or as an <input webkitdirectory> or a drop gives them. */
export interface FolderSource {
    files: Iterable<File> | Record<string, Blob>;
    /** The model's file among them. */
    model: string;
}

/** Where a model's file is. A string is a URL; in Node and Deno also a path. */
export type ModelSource = string | URL | UrlSource | Blob | ArrayBuffer | ArrayBufferView | FolderSource;

export interface OpenOptions {
    /** External data by the name that the model has for it, in place of the file beside the model. */
    external?: Record<string, ModelSource>;
    store?: Store | null;
    signal?: AbortSignal;
    /** Bytes that have come, of this file. */
    onBytes?(input: Input, bytes: number): void;
}

export const isNode = typeof (globalThis as {process?: {versions?: {node?: string}}}).process?.versions?.node ===
    'string';

export function io(text: string): DibitError {
    return new DibitError('IO', text);
}

function notFound(name: string, location: string): DibitError {
    return new DibitError('NOT_FOUND', `'${location}', which '${name}' needs, was not given with it`);
}

export async function openInput(source: ModelSource, options: OpenOptions): Promise<Input> {
    const input = await openAny(source, options);
    const {external} = options;
    if (!external) return input;
    const beside = input.beside.bind(input);
    return Object.assign(input, {
        beside: (location: string) => {
            const name = Object.keys(external).find(key => normal(key) === normal(location));
            return name === undefined ? beside(location) : openAny(external[name], options);
        },
    });
}

async function openAny(source: ModelSource, options: OpenOptions): Promise<Input> {
    if (typeof source === 'string') return openName(source, options);
    if (source instanceof URL) return openName(source.href, options);
    if (source instanceof Blob) return new BlobInput(source, (source as File).name || 'model', options);
    if (source instanceof ArrayBuffer) return new BytesInput(new Uint8Array(source), 'model');
    if (ArrayBuffer.isView(source)) {
        return new BytesInput(new Uint8Array(source.buffer, source.byteOffset, source.byteLength), 'model');
    }
    if (typeof source !== 'object' || source === null) throw unknownSource();
    if ('url' in source) {
        const href = source.url instanceof URL ? source.url.href : source.url;
        return /^file:/i.test(href) ? openName(href, options) : openUrl(absolute(href), {...options, ...source});
    }
    if ('files' in source) return openFolder(source, options);
    throw unknownSource();
}

function unknownSource(): DibitError {
    return new DibitError('BAD_ARGUMENT', 'a model is a URL, a path, a Blob, bytes or a folder of files');
}

function absolute(url: string): string {
    const {location} = globalThis as {location?: {href: string}};
    try {
        return new URL(url, location?.href).href;
    } catch {
        throw new DibitError('BAD_ARGUMENT', `'${url}' is no URL`);
    }
}

function openName(name: string, options: OpenOptions): Promise<Input> {
    const isUrl = /^[a-z][a-z0-9+.-]+:/i.test(name);
    if (isNode && (!isUrl || /^file:/i.test(name))) return NodeFile.open(name, options);
    return openUrl(absolute(name), options);
}

/* ---- Memory ---- */

class BytesInput implements Input {
    readonly seekable = true;
    constructor(readonly bytes: Uint8Array, readonly name: string) {}

    get size(): number {
        return this.bytes.length;
    }

    async *open(from: number): AsyncIterable<Uint8Array> {
        yield this.bytes.subarray(from);
    }

    beside(location: string): Promise<Input> {
        return Promise.reject(notFound(this.name, location));
    }
}

/* ---- Blobs and folders ---- */

const PIECE_BYTES = 1 << 20;

export class BlobInput implements Input {
    readonly seekable = true;
    constructor(private readonly blob: Blob, readonly name: string, private readonly options: OpenOptions,
                private readonly folder?: Folder) {}

    get size(): number {
        return this.blob.size;
    }

    async *open(from: number, length: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
        const end = Math.min(this.size, from + length);
        for (let at = from; at < end; at += PIECE_BYTES) {
            signal.throwIfAborted();
            let bytes: Uint8Array;
            try {
                bytes = new Uint8Array(await this.blob.slice(at, Math.min(end, at + PIECE_BYTES)).arrayBuffer());
            } catch (e) {
                throw io(`cannot read '${this.name}': ${(e as Error).message}`);
            }
            this.options.onBytes?.(this, bytes.length);
            yield bytes;
        }
    }

    async beside(location: string): Promise<Input> {
        const path = normal(`${this.folder?.inside ?? ''}/${location}`), found = this.folder?.find(path);
        if (!found) throw notFound(this.name, location);
        return new BlobInput(found, path, this.options, this.folder);
    }
}

/** Without "./", doubled slashes and what ".." leaves. */
function normal(path: string): string {
    const parts: string[] = [];
    for (const part of path.replaceAll('\\', '/').split('/')) {
        if (part === '..') parts.pop();
        else if (part && part !== '.') parts.push(part);
    }
    return parts.join('/');
}

class Folder {
    private readonly files = new Map<string, Blob>();
    readonly inside: string; /* where the model is */

    constructor(source: FolderSource) {
        if (Symbol.iterator in source.files) {
            for (const file of source.files as Iterable<File>) {
                this.files.set(normal(file.webkitRelativePath || file.name), file);
            }
        } else {
            for (const [name, blob] of Object.entries(source.files)) this.files.set(normal(name), blob);
        }
        this.inside = normal(`${source.model}/..`);
    }

    /** By its path, with or without the folder's own name. */
    find(path: string): Blob | undefined {
        path = normal(path);
        const exact = this.files.get(path);
        if (exact) return exact;
        const found = [...this.files.keys()].filter(name => name.endsWith(`/${path}`));
        return found.length === 1 ? this.files.get(found[0]) : undefined;
    }
}

function openFolder(source: FolderSource, options: OpenOptions): Input {
    const folder = new Folder(source), model = folder.find(source.model);
    if (!model) throw new DibitError('NOT_FOUND', `there is no '${source.model}' among the files`);
    return new BlobInput(model, source.model, options, folder);
}

/* ---- Files of Node and Deno ---- */

interface FileHandle {
    read(to: Uint8Array, offset: number, length: number, position: number): Promise<{bytesRead: number}>;
    stat(): Promise<{size: number; isFile(): boolean}>;
    close(): Promise<void>;
}

/* Variables, so that bundlers for pages leave the modules alone. */
const FS = 'node:fs/promises', PATH = 'node:path', URLS = 'node:url';

class NodeFile implements Input {
    readonly seekable = true;
    private constructor(readonly name: string, readonly size: number, private readonly file: FileHandle,
                        private readonly options: OpenOptions) {}

    static async open(name: string, options: OpenOptions): Promise<Input> {
        const fs = await import(/* @vite-ignore */ /* webpackIgnore: true */ FS) as
            {open(path: string): Promise<FileHandle>};
        const urls = await import(/* @vite-ignore */ /* webpackIgnore: true */ URLS) as
            {fileURLToPath(url: string): string};
        const path = /^file:/i.test(name) ? urls.fileURLToPath(name) : name;
        let file: FileHandle | undefined;
        try {
            file = await fs.open(path);
            const {size, ...stat} = await file.stat().then(s => ({size: s.size, isFile: s.isFile()}));
            if (!stat.isFile) throw new Error('it is no file');
            return new NodeFile(path, size, file, options);
        } catch (e) {
            await file?.close();
            throw io(`cannot open '${path}': ${(e as Error).message}`);
        }
    }

    async *open(from: number, length: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
        const end = Math.min(this.size, from + length);
        for (let at = from; at < end;) {
            signal.throwIfAborted();
            const piece = new Uint8Array(Math.min(PIECE_BYTES, end - at));
            let bytesRead = 0;
            try {
                ({bytesRead} = await this.file.read(piece, 0, piece.length, at));
            } catch (e) {
                throw io(`cannot read '${this.name}': ${(e as Error).message}`);
            }
            if (bytesRead === 0) throw io(`'${this.name}' ends at byte ${at} of ${this.size}: it was changed`);
            this.options.onBytes?.(this, bytesRead);
            yield piece.subarray(0, bytesRead);
            at += bytesRead;
        }
    }

    async beside(location: string): Promise<Input> {
        const path = await import(/* @vite-ignore */ /* webpackIgnore: true */ PATH) as
            {join(...parts: string[]): string; dirname(path: string): string};
        return NodeFile.open(path.join(path.dirname(this.name), location), this.options);
    }

    close(): void {
        this.file.close().catch(() => {});
    }
}
