/* Files on servers: Range requests where the server has them, else one stream from the beginning. What
 * comes is checked against the size and the ETag that came first. */
import {BlobInput, Input, OpenOptions, io} from './input.js';

/** What the first request takes: the head of a model's file. */
export const HEAD_BYTES = 64 << 10;

export interface HttpOptions extends OpenOptions {
    size?: number;
    headers?: Record<string, string>;
}

/** What tells one version of a file from another. */
export interface Version {
    size: number;
    /** ETag, else Last-Modified, else ''. */
    tag: string;
}

function tagOf(response: Response): string {
    return response.headers.get('etag') ?? response.headers.get('last-modified') ?? '';
}

/** "bytes 0-65535/1000000"; NaN where the server, or the browser for another origin, does not say. */
function totalOf(response: Response): number {
    const text = response.headers.get('content-range');
    return Number(/\/(\d+)\s*$/.exec(text ?? '')?.[1] ?? NaN);
}

/** fetch() whose failure says why, as far as browsers tell. */
export async function reach(url: string, init: RequestInit): Promise<Response> {
    try {
        return await fetch(url, init);
    } catch (e) {
        if (init.signal?.aborted) throw e;
        const {onLine} = (globalThis as {navigator?: {onLine?: boolean}}).navigator ?? {};
        const cause = (e as {cause?: {message?: string; code?: string}}).cause;
        throw new Unreachable(onLine === false ? `cannot load ${url}: this device is offline`
            : `cannot load ${url}: the server is not reachable${cause ? ` (${cause.code ?? cause.message})`
                : ', or does not allow this page to read it'}`);
    }
}

async function request(url: string, init: RequestInit): Promise<Response> {
    const response = await reach(url, init);
    if (!response.ok) {
        await response.body?.cancel().catch(() => {});
        throw io(`cannot load ${url}: the server answers ${response.status} ${response.statusText}`.trimEnd());
    }
    return response;
}

/** The network may be back later. */
export class Unreachable extends Error {}

export async function openUrl(url: string, options: HttpOptions): Promise<Input> {
    const input = options.store && /^https?:/i.test(url)
        ? await options.store.open(url, options, () => HttpInput.open(url, options))
        : await HttpInput.open(url, options).catch(explain);
    if (options.size !== undefined && input.size !== options.size) {
        input.close?.();
        throw io(`${url} has ${input.size} bytes where ${options.size} were expected`);
    }
    return input;
}

function openBeside(name: string, location: string, options: HttpOptions): Promise<Input> {
    const url = new URL(location.split('/').map(encodeURIComponent).join('/'), name);
    url.search = new URL(name).search; /* tokens, revisions */
    return openUrl(url.href, {...options, size: undefined});
}

export function explain(e: unknown): never {
    throw e instanceof Unreachable ? io(e.message) : e;
}

const READ_BYTES = 256 << 10;

/** Reads a body into one buffer again and again, so that nothing piles up for the collector; where that is not
 * possible, as pieces come. What read() gave is gone with the next read(). */
class BodyReader {
    private readonly byob: ReadableStreamBYOBReader | null = null;
    private readonly plain: ReadableStreamDefaultReader<Uint8Array> | null = null;
    private buffer = new ArrayBuffer(READ_BYTES);

    constructor(body: ReadableStream<Uint8Array>) {
        try {
            this.byob = body.getReader({mode: 'byob'});
        } catch {
            this.plain = body.getReader();
        }
    }

    /** null at the end. */
    async read(): Promise<Uint8Array | null> {
        if (this.plain) return (await this.plain.read()).value ?? null;
        const {value, done} = await this.byob!.read(new Uint8Array(this.buffer));
        if (value) this.buffer = value.buffer as ArrayBuffer;
        return done ? null : value ?? null;
    }

    cancel(): Promise<void> {
        return (this.byob ?? this.plain!).cancel();
    }
}

export class HttpInput implements Input {
    readonly size: number;
    readonly tag: string;

    private constructor(readonly name: string, version: Version, readonly seekable: boolean,
                        private readonly options: HttpOptions, private first: Response | null) {
        this.size = version.size;
        this.tag = version.tag;
    }

    /** A file that was there before: what is not in a store is requested when it is needed. */
    static known(url: string, version: Version, options: HttpOptions): HttpInput {
        return new HttpInput(url, version, true, options, null);
    }

    static async open(url: string, options: HttpOptions): Promise<Input> {
        const {headers, signal} = options;
        const response = await request(url, {headers: {...headers, range: `bytes=0-${HEAD_BYTES - 1}`}, signal});
        const ranged = response.status === 206;
        /* The length of a compressed body says nothing about the file's. */
        const encoded = response.headers.get('content-encoding') !== null;
        const length = response.headers.get('content-length');
        let size = ranged ? totalOf(response) : encoded || length === null ? NaN : Number(length);
        if (ranged && Number.isNaN(size)) {
            await response.body?.cancel();
            size = Number((await request(url, {method: 'HEAD', headers, signal})).headers.get('content-length') ??
                          NaN);
        }
        if (Number.isNaN(size)) { /* all there is to know is at the end */
            const whole = ranged ? await request(url, {headers, signal}) : response;
            const beside = (location: string) => openBeside(url, location, options);
            return Object.assign(new BlobInput(await whole.blob(), url, options), {beside});
        }
        const kept = ranged && response.bodyUsed ? null : response;
        return new HttpInput(url, {size, tag: tagOf(response)}, ranged, options, kept);
    }

    private check(response: Response): void {
        const total = response.status === 206 ? totalOf(response) : Number(response.headers.get('content-length') ?? NaN);
        if (!Number.isNaN(total) && total !== this.size && !response.headers.get('content-encoding')) {
            throw io(`${this.name} has ${total} bytes now, and had ${this.size}: it was changed while it was loaded`);
        }
        const tag = tagOf(response);
        if (tag && this.tag && tag !== this.tag) {
            throw io(`${this.name} was changed on the server while it was loaded`);
        }
    }

    async *open(from: number, length: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
        const end = Math.min(this.size, from + length), {first} = this;
        let at = from;
        this.first = null;
        if (first && (first.status !== 206 || from < HEAD_BYTES)) {
            for await (const piece of this.body(first, 0, from, signal)) {
                at += piece.length;
                yield piece;
            }
        } else {
            first?.body?.cancel().catch(() => {});
        }
        if (at >= end) return;
        const response = await request(this.name, {
            headers: {...this.options.headers, range: `bytes=${at}-${end - 1}`}, signal,
        });
        this.check(response);
        /* The server may ignore Range. */
        yield* this.body(response, response.status === 206 ? at : 0, at, signal);
    }

    /** A response's bytes from `from` on; its body begins at `at`. */
    private async *body(response: Response, at: number, from: number, signal: AbortSignal):
        AsyncIterable<Uint8Array> {
        const reader = new BodyReader(response.body!);
        const stop = () => void reader.cancel().catch(() => {});
        signal.addEventListener('abort', stop);
        try {
            for (;;) {
                signal.throwIfAborted();
                const value = await reader.read().catch((e: unknown) => {
                    throw new Unreachable(`the connection for ${this.name} broke at byte ${at} of ${this.size} (${
                        (e as Error).message})`);
                });
                if (!value) return;
                this.options.onBytes?.(this, value.length);
                const skipped = Math.max(0, Math.min(value.length, from - at));
                at += value.length;
                if (at > this.size) throw io(`${this.name} has more than the ${this.size} bytes that were declared`);
                if (skipped < value.length) yield skipped ? value.subarray(skipped) : value;
            }
        } finally {
            signal.removeEventListener('abort', stop);
            stop();
        }
    }

    beside(location: string): Promise<Input> {
        return openBeside(this.name, location, this.options);
    }

    close(): void {
        this.first?.body?.cancel().catch(() => {});
        this.first = null;
    }
}
