/* A model's folder, wherever it is: below a URL, in a FileSystemDirectoryHandle, among File objects, or on
 * the disk of Node and Deno. */
import {Unreachable, explain, reach} from './http.js';
import {io, isNode} from './input.js';

import type {ModelSource} from './input.js';
import type {Store} from './store.js';

/** A folder's URL (https://huggingface.co/OWNER/NAME will do) or the URL of a .onnx file in it; a path in
 * Node and Deno; a handle from showDirectoryPicker(); files that the user dropped or chose. */
export type ModelFiles = string | URL | FileSystemDirectoryHandle | Iterable<File>;

export interface Folder {
    /** How errors call it. */
    readonly place: string;
    /** The model's name when the caller has named it. */
    readonly model?: string;
    /** A file's text; undefined when there is no such file. */
    text(name: string): Promise<string | undefined>;
    /** A model as the engine reads it, with the files beside it; undefined when there is no such file. */
    source(name: string): Promise<ModelSource | undefined>;
}

export interface FolderOptions {
    /** Where a server's small files are kept, for when it cannot be reached. */
    store?: Store | null;
    signal?: AbortSignal;
}

const isUrl = (text: string) => /^(https?|file|blob|data):/i.test(text);

/* A path or URL of a folder, or of a .onnx file in it or in its folder onnx/, in two. */
function split(path: string): {folder: string; model?: string} {
    if (!path.endsWith('.onnx')) return {folder: path.endsWith('/') ? path : `${path}/`};
    const [, folder, model] = /^(.*\/)?((?:onnx\/)?[^/]*)$/.exec(path)!;
    return {folder: folder ?? '', model};
}

class UrlFolder implements Folder {
    readonly model?: string;
    private readonly base: URL;

    constructor(from: URL, private readonly options: FolderOptions) {
        const url = new URL(from);
        if (url.hostname === 'huggingface.co' && /^\/[^/]+\/[^/]+\/?$/.test(url.pathname)) {
            url.pathname = `${url.pathname.replace(/\/$/, '')}/resolve/main/`;
        }
        const {folder, model} = split(url.pathname);
        url.pathname = folder;
        this.base = url;
        this.model = model;
    }

    get place(): string {
        return this.base.href;
    }

    private url(name: string): URL {
        const url = new URL(name, this.base);
        url.search = this.base.search;
        return url;
    }

    async source(name: string): Promise<URL | undefined> {
        const url = this.url(name), {store} = this.options;
        try {
            return await this.request(url, 'HEAD') ? url : undefined;
        } catch (e) {
            if (e instanceof Unreachable && store) return await store.knows(url.href) ? url : undefined;
            explain(e);
        }
    }

    /* Without a network: as it was. */
    async text(name: string): Promise<string | undefined> {
        const {href} = this.url(name), {store} = this.options;
        try {
            const text = await (await this.request(this.url(name), 'GET'))?.text();
            await store?.putText(href, text ?? null);
            return text;
        } catch (e) {
            const kept = e instanceof Unreachable ? await store?.text(href) : undefined;
            return kept === undefined ? explain(e) : kept ?? undefined;
        }
    }

    private async request(url: URL, method: string): Promise<Response | undefined> {
        const answer = await reach(url.href, {method, signal: this.options.signal});
        /* Some servers have a page for every address. */
        const isPage = answer.headers.get('content-type')?.startsWith('text/html');
        if (answer.ok && !isPage) return answer;
        await answer.body?.cancel();
        if (answer.ok || answer.status === 404 || answer.status === 403) return undefined;
        throw io(`cannot load ${url}: the server answers ${answer.status} ${answer.statusText}`.trimEnd());
    }
}

class HandleFolder implements Folder {
    constructor(private readonly handle: FileSystemDirectoryHandle) {}

    get place(): string {
        return `the folder '${this.handle.name}'`;
    }

    /* undefined when there is no such thing. */
    private async find<T>(open: () => Promise<T>): Promise<T | undefined> {
        try {
            return await open();
        } catch (e) {
            if ((e as Error).name === 'NotFoundError') return undefined;
            throw e;
        }
    }

    private async folderOf(name: string): Promise<{folder: FileSystemDirectoryHandle; file: string}> {
        const parts = name.split('/'), file = parts.pop()!;
        let folder = this.handle;
        for (const part of parts) folder = await folder.getDirectoryHandle(part);
        return {folder, file};
    }

    text(name: string): Promise<string | undefined> {
        return this.find(async () => {
            const {folder, file} = await this.folderOf(name);
            return (await (await folder.getFileHandle(file)).getFile()).text();
        });
    }

    source(name: string): Promise<ModelSource | undefined> {
        return this.find(async () => {
            const {folder, file} = await this.folderOf(name), files: Record<string, File> = {};
            await folder.getFileHandle(file);
            for await (const entry of folder.values()) {
                if (entry.kind === 'file') files[entry.name] = await entry.getFile();
            }
            return {files, model: file};
        });
    }
}

/* Files of one folder, told by their paths below the folder that was chosen, or by their names alone. */
class FileFolder implements Folder {
    readonly place = 'these files';
    private readonly files: Record<string, File> = {};

    constructor(files: Iterable<File>) {
        for (const file of files) {
            const path = file.webkitRelativePath;
            this.files[path ? path.slice(path.indexOf('/') + 1) : file.name] = file;
        }
    }

    /* The name that the file has here. */
    private key(name: string): string | undefined {
        return [name, name.slice(name.lastIndexOf('/') + 1)].find(key => key in this.files);
    }

    async text(name: string): Promise<string | undefined> {
        const key = this.key(name);
        return key === undefined ? undefined : this.files[key].text();
    }

    async source(name: string): Promise<ModelSource | undefined> {
        const model = this.key(name);
        return model === undefined ? undefined : {files: this.files, model};
    }
}

/* A variable, so that bundlers for pages leave the module alone. */
const FS = 'node:fs/promises';

interface Files {
    readFile(path: string, encoding: 'utf8'): Promise<string>;
    access(path: string): Promise<void>;
}

async function files(): Promise<Files> {
    if (!isNode) throw new Error('paths are for Node and Deno: give a URL, or files');
    return await import(/* @vite-ignore */ /* webpackIgnore: true */ FS) as Files;
}

class DiskFolder implements Folder {
    readonly model?: string;
    readonly place: string;

    constructor(path: string) {
        const {folder, model} = split(path.replaceAll('\\', '/'));
        this.place = folder;
        this.model = model;
    }

    async text(name: string): Promise<string | undefined> {
        const path = await this.source(name);
        return path === undefined ? undefined : (await files()).readFile(path, 'utf8');
    }

    async source(name: string): Promise<string | undefined> {
        const path = this.place + name;
        return await (await files()).access(path).then(() => path, () => undefined);
    }
}

export function openFolder(from: ModelFiles, options: FolderOptions): Folder {
    if (typeof from === 'string' && !isUrl(from) && typeof location !== 'undefined' &&
        typeof document !== 'undefined') {
        from = new URL(from, document.baseURI);
    }
    if (from instanceof URL || (typeof from === 'string' && isUrl(from))) {
        const url = new URL(from);
        if (url.protocol !== 'file:') return new UrlFolder(url, options);
        from = decodeURIComponent(url.pathname);
    }
    if (typeof from === 'string') return new DiskFolder(from);
    if ('getFileHandle' in from) return new HandleFolder(from);
    return new FileFolder(from);
}
