/* What a page and the worker with its model say to each other, and calls over it: each has a number; it
 * is answered once, and may give any number of events before. */
import {DibitError} from './wasm.js';

export interface CallMessage {
    id: number;
    call: string;
    args: unknown[];
}

export type AnswerMessage =
    | {id: number; event: unknown}
    | {id: number; result: unknown}
    | {id: number; failure: {name: string; message: string; status?: string}};

export interface CancelMessage {
    cancel: number;
}

/** The part of Worker and of a worker's global scope that is used here. */
export interface Port {
    postMessage(message: unknown, transfer?: Transferable[]): void;
    addEventListener(type: 'message', listener: (event: MessageEvent) => void): void;
}

function failure(e: unknown): {name: string; message: string; status?: string} {
    const error = e instanceof Error ? e : new Error(String(e));
    return {name: error.name, message: error.message, status: (error as Partial<DibitError>).status};
}

function thrown(f: {name: string; message: string; status?: string}): Error {
    if (f.status !== undefined) return new DibitError(f.status, f.message);
    const error = new Error(f.message);
    error.name = f.name;
    return error;
}

export interface CallOptions {
    onEvent?: (event: never) => void;
    signal?: AbortSignal;
}

/** The caller's side. */
export class Caller {
    private next = 1;
    private readonly open = new Map<number, {
        resolve(result: unknown): void; reject(e: unknown): void; onEvent?: (event: never) => void;
    }>();

    constructor(private readonly port: Port) {
        port.addEventListener('message', ({data}: MessageEvent<AnswerMessage>) => {
            const call = this.open.get(data.id);
            if (!call) return;
            if ('event' in data) {
                call.onEvent?.(data.event as never);
                return;
            }
            this.open.delete(data.id);
            if ('failure' in data) call.reject(thrown(data.failure));
            else call.resolve(data.result);
        });
    }

    call<T>(call: string, args: unknown[], {onEvent, signal}: CallOptions = {}): Promise<T> {
        signal?.throwIfAborted();
        const id = this.next++;
        return new Promise<T>((resolve, reject) => {
            const cancel = () => {
                this.port.postMessage({cancel: id} satisfies CancelMessage);
                reject(signal!.reason);
            };
            signal?.addEventListener('abort', cancel, {once: true});
            const end = () => signal?.removeEventListener('abort', cancel);
            this.open.set(id, {
                resolve: result => { end(); resolve(result as T); },
                reject: e => { end(); reject(e); },
                onEvent,
            });
            this.port.postMessage({id, call, args} satisfies CallMessage);
        });
    }

    /** Nothing will be answered any more. */
    fail(e: unknown): void {
        for (const call of this.open.values()) call.reject(e);
        this.open.clear();
    }
}

export type Handler = (call: string, args: never[], context: {
    event(event: unknown, transfer?: Transferable[]): void; signal: AbortSignal;
}) => Promise<unknown>;

/** The answering side. */
export function answerCalls(port: Port, handler: Handler): void {
    const running = new Map<number, AbortController>();
    port.addEventListener('message', async ({data}: MessageEvent<CallMessage | CancelMessage>) => {
        if ('cancel' in data) {
            running.get(data.cancel)?.abort();
            return;
        }
        const {id, call, args} = data, controller = new AbortController();
        running.set(id, controller);
        try {
            const result = await handler(call, args as never[], {
                event: event => port.postMessage({id, event} satisfies AnswerMessage),
                signal: controller.signal,
            });
            port.postMessage({id, result} satisfies AnswerMessage);
        } catch (e) {
            port.postMessage({id, failure: failure(e)} satisfies AnswerMessage);
        } finally {
            running.delete(id);
        }
    });
}
