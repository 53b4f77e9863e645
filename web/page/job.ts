/* The worker of a job: jobs.ts starts it. */
import {diff, formatReport, trace, verify} from 'dibit/verify';
import type {DebugModel, DiffOptions, DiffReport, TraceOptions, TraceReport, VerifyOptions, VerifyReport} from 'dibit/verify';

import {benchmark} from './bench_run.js';
import type {BenchOptions} from './bench_run.js';
import {answerCalls} from '../src/messages.js';
import type {Port} from '../src/messages.js';

/** What a diagnosis gives. */
export interface Reported<R> {
    report: R;
    text: string;
}

function reported<R extends VerifyReport | DiffReport | TraceReport>(report: R): Reported<R> {
    return {report, text: formatReport(report)};
}

answerCalls(globalThis as unknown as Port, async (call, args: unknown[], {event, signal}) => {
    const with_ = <O>(options: unknown) => ({...options as O, signal, onProgress: event});
    switch (call) {
    case 'verify': return reported(await verify(with_<VerifyOptions>(args[0])));
    case 'diff': return reported(await diff(args[0] as DebugModel, with_<DiffOptions>(args[1])));
    case 'trace': return reported(await trace(args[0] as DebugModel, with_<TraceOptions>(args[1])));
    case 'benchmark': return benchmark(args[0] as BenchOptions, event);
    default: throw new Error(`there is no job '${call}'`);
    }
});
