/* Work that would hold the page up: each job has a worker of its own (job.ts), which ends with it. */
import {Caller} from '../src/messages.js';

export interface JobOptions<E> {
    onEvent?: (event: E) => void;
    signal: AbortSignal;
}

export async function runJob<R, E>(name: string, args: unknown[], {onEvent, signal}: JobOptions<E>): Promise<R> {
    const worker = new Worker(new URL('./job.js', import.meta.url), {type: 'module', name});
    const caller = new Caller(worker);
    worker.addEventListener('error', event => caller.fail(new Error(event.message || 'the worker cannot be started')));
    try {
        return await caller.call<R>(name, args, {onEvent: onEvent as (event: never) => void, signal});
    } finally {
        worker.terminate();
    }
}
