/* The worker of a job: jobs.ts starts it. */
import {verify} from 'dibit/verify';

import {benchmark} from './bench_run.js';
import type {BenchOptions} from './bench_run.js';
import {answerCalls} from '../src/messages.js';
import type {Port} from '../src/messages.js';

answerCalls(globalThis as unknown as Port, async (call, args, {event, signal}) => {
    switch (call) {
    case 'verify': {
        const [device, scope] = args as unknown as ['webgpu' | 'wasm', 'normal' | 'quick'];
        return verify({device, scope, signal, onProgress: event});
    }
    case 'benchmark': return benchmark(args[0] as unknown as BenchOptions, event);
    default: throw new Error(`there is no job '${call}'`);
    }
});
