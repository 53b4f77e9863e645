/* The page's side of src/base/source_web.c: answers the imports of "dibit_source" with what is here, or
 * begins to fetch it and answers PENDING.
 *
 * The engine walks over a model's file once, with small reads that jump over weights; then it takes the
 * weights in the file's order. So a Reader holds a window of the file that moves on:
 *
 *     file     |......dropped.....[ what is in the ring ]...not here yet.............|
 *                      last read ^              from here on: the stream
 *
 * A read that follows the window goes on with the stream; one that jumps begins a new stream, which asks for
 * little at first and for more as long as reads follow each other. */
import type {Input, OpenOptions} from './input.js';
import {openInput} from './input.js';
import {Unreachable} from './http.js';
import {DibitError, IO, NOT_FOUND, OK, PENDING, Pointer, Waiter, Wasm} from './wasm.js';

/** Bytes that a reader holds before they are asked for. */
const AHEAD_BYTES = 4 << 20;
/** Requests are between these, but for longer reads. */
const LEAST_REQUEST = 64 << 10, MOST_REQUEST = 1 << 30;
/** It costs less to read this much than to ask again. */
const SKIP_BYTES = 256 << 10;
/** After a broken connection. */
const RETRY_MS = [200, 800, 2000];
/** Longer reads are done in parts, so that the window need not hold them. */
const PART_BYTES = 1 << 20;

class Reader {
    /* The byte at an offset lies at that offset modulo the ring's length. */
    private ring: Uint8Array | null = null;
    private first = 0; /* the offset of the first byte in it */
    private end = 0; /* behind the last */
    private at = 0; /* of the last read: nothing before it is kept */
    private wanted = 0; /* the last read waits for bytes up to here */
    private stream: AbortController | null = null;
    private request = LEAST_REQUEST;
    private failure: DibitError | null = null;
    private wake: (() => void) | null = null;

    constructor(readonly input: Input, private readonly waiter: Waiter) {}

    /** Copies bytes at offset to `into`, PART_BYTES at most, if they are here; `following` bytes from there on
     * will be asked for. */
    copy(offset: number, following: number, into: Uint8Array): number | DibitError {
        const {input} = this, n = into.length;
        if (offset + n > input.size) {
            return new DibitError('IO', `'${input.name}' has no bytes ${offset} to ${offset + n}: it has ${input.size}`);
        }
        if (input.bytes) {
            into.set(input.bytes.subarray(offset, offset + n));
            return OK;
        }
        if (offset >= this.first && offset + n <= this.end) {
            this.take(offset, into);
            return OK;
        }
        const {failure} = this;
        if (failure) {
            this.failure = null;
            return failure;
        }
        this.need(offset, n, following);
        this.waiter.block();
        return PENDING;
    }

    private take(offset: number, into: Uint8Array): void {
        const ring = this.ring!, from = offset % ring.length, n = Math.min(into.length, ring.length - from);
        into.set(ring.subarray(from, from + n));
        into.set(ring.subarray(0, into.length - n), n);
        this.drop(offset + into.length);
    }

    /** Forgets what is before. */
    private drop(offset: number): void {
        this.at = offset;
        this.first = Math.min(Math.max(this.first, offset), this.end);
        this.wake?.();
    }

    private need(offset: number, n: number, following: number): void {
        this.wanted = offset + n;
        const far = this.input.seekable ? SKIP_BYTES : Infinity;
        const follows = offset >= this.first && offset <= this.end + (this.stream ? far : 0);
        if (!follows) {
            this.rest();
            this.first = this.end = offset;
        }
        this.drop(offset);
        if (!this.stream) this.start(following);
    }

    private start(following: number): void {
        this.ring ??= new Uint8Array(Math.min(AHEAD_BYTES, this.input.size));
        const stream = this.stream = new AbortController();
        void this.waiter.track(this.pump(stream, following).catch((e: unknown) => {
            if (this.stream !== stream) return;
            this.stream = null;
            this.failure = e instanceof DibitError ? e : new DibitError('IO', (e as Error).message);
        }));
    }

    private async pump(stream: AbortController, following: number): Promise<void> {
        const {input} = this;
        let failures = 0;
        while (this.stream === stream && this.end < input.size) {
            const before = this.end;
            try {
                await this.pull(stream, input.seekable ? Math.max(this.request, following) : input.size - before);
                if (this.stream !== stream) return;
                if (this.end === before) throw new Unreachable(`${input.name} ends at byte ${before} of ${input.size}`);
                failures = 0;
            } catch (e) {
                if (this.stream !== stream) return;
                if (this.end - before >= LEAST_REQUEST) failures = 0;
                if (!(e instanceof Unreachable) || failures >= RETRY_MS.length) throw e;
                await sleep(RETRY_MS[failures++]);
            }
            following = 0;
            this.request = Math.min(this.request * 4, MOST_REQUEST);
        }
        if (this.stream === stream) this.stream = null;
    }

    private async pull(stream: AbortController, bytes: number): Promise<void> {
        for await (let piece of this.input.open(this.end, bytes, stream.signal)) {
            while (piece.length > 0) {
                if (this.stream !== stream) return;
                piece = piece.subarray(this.put(piece));
                if (this.end >= this.wanted) this.waiter.wakeAll();
                if (piece.length === 0) break;
                /* Nothing is under way while there is enough: others must not wait for it. */
                await this.waiter.without(new Promise<void>(wake => void (this.wake = wake)));
                this.wake = null;
            }
        }
    }

    /** Takes over as many bytes as there is room for, and says how many. */
    private put(piece: Uint8Array): number {
        const ring = this.ring!, skipped = Math.min(piece.length, Math.max(0, this.at - this.end));
        this.end += skipped;
        if (skipped) this.first = this.end;
        const n = Math.min(piece.length - skipped, ring.length - (this.end - this.first));
        const to = this.end % ring.length, part = Math.min(n, ring.length - to);
        ring.set(piece.subarray(skipped, skipped + part), to);
        ring.set(piece.subarray(skipped + part, skipped + n), 0);
        this.end += n;
        return skipped + n;
    }

    /** Lets go of the stream and what it brought; the next read begins another. */
    rest(): void {
        const {stream} = this;
        this.stream = null;
        stream?.abort();
        this.wake?.();
        this.ring = null;
        this.first = this.end;
        this.request = LEAST_REQUEST;
        this.failure = null;
    }

    close(): void {
        this.rest();
        this.input.close?.();
    }
}

function sleep(ms: number): Promise<void> {
    return new Promise(resolve => setTimeout(resolve, ms));
}

/** All that an engine reads, by number. */
export class Sources {
    private readonly readers: (Reader | undefined)[] = [];
    private readonly opening = new Map<string, Input | DibitError | null>();
    /* A long read that waits for bytes: how far it is. */
    private partial = {source: -1, offset: 0, bytes: 0, dst: 0, done: 0};

    constructor(private readonly wasm: Wasm) {}

    async open(source: Parameters<typeof openInput>[0], options: OpenOptions): Promise<{number: number; input: Input}> {
        const input = await openInput(source, options);
        return {number: this.add(input), input};
    }

    private add(input: Input): number {
        let number = this.readers.indexOf(undefined);
        if (number < 0) number = this.readers.length;
        this.readers[number] = new Reader(input, this.wasm.waiter);
        return number;
    }

    close(number: number): void {
        this.readers[number]?.close();
        this.readers[number] = undefined;
    }

    /** Nothing is being loaded: no stream need be open, and memory may have been used otherwise. */
    rest(): void {
        this.partial.source = -1;
        for (const reader of this.readers) reader?.rest();
    }

    /** For write_source: bytes at `offset`, of which `following` will be asked for. */
    copy(source: number, offset: number, following: number, into: Uint8Array, error: Pointer): number {
        const answer = this.readers[source]!.copy(offset, following, into);
        return typeof answer === 'number' ? answer : this.wasm.fail(error, IO, answer.message);
    }

    private read(source: number, offset: number, bytes: number, dst: Pointer, error: Pointer): number {
        const p = this.partial, {wasm} = this;
        if (p.source !== source || p.offset !== offset || p.bytes !== bytes || p.dst !== dst) {
            this.partial = {source, offset, bytes, dst, done: 0};
        }
        const now = this.partial;
        while (now.done < bytes) {
            const n = Math.min(PART_BYTES, bytes - now.done), at = dst + now.done;
            const status = this.copy(source, offset + now.done, bytes - now.done, wasm.bytes.subarray(at, at + n),
                                     error);
            if (status !== OK) {
                if (status !== PENDING) now.source = -1;
                return status;
            }
            now.done += n;
        }
        now.source = -1;
        return OK;
    }

    private openBeside(source: number, location: string, opened: Pointer, size: Pointer, error: Pointer): number {
        const {opening, wasm} = this, key = `${source}/${location}`, known = opening.get(key);
        if (known) {
            opening.delete(key);
            if (known instanceof DibitError) {
                return wasm.fail(error, known.status === 'NOT_FOUND' ? NOT_FOUND : IO, known.message);
            }
            wasm.view.setUint32(opened, this.add(known), true);
            wasm.view.setBigUint64(size, BigInt(known.size), true);
            return OK;
        }
        if (known === undefined) {
            opening.set(key, null);
            void wasm.waiter.track(this.readers[source]!.input.beside(location).then(input => {
                if (this.readers[source]) opening.set(key, input);
                else input.close?.();
            }, (e: unknown) => {
                opening.set(key, e instanceof DibitError ? e : new DibitError('IO', (e as Error).message));
            }));
        }
        wasm.waiter.block();
        return PENDING;
    }

    imports(): WebAssembly.ModuleImports {
        return {
            read: (source: number, offset: bigint, bytes: bigint, dst: Pointer, error: Pointer) =>
                this.read(source, Number(offset), Number(bytes), dst >>> 0, error),
            open: (source: number, location: Pointer, bytes: number, opened: Pointer, size: Pointer,
                   error: Pointer) =>
                this.openBeside(source, this.wasm.text(location, bytes), opened, size, error),
            close: (source: number) => this.close(source),
        };
    }
}
