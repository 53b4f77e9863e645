/* The package's front: load() gives a language model, in a worker of its own where there are pages. */
import {Generation} from './language.js';
import {Caller} from './messages.js';

import type {ModelFiles} from './folder.js';
import type {EmbedOptions, Explanation, GenerateOptions, GenerationInfo, LanguageModel, Message,
             ModelDescription, Pieces} from './language.js';
import type {InlineOptions} from './lm.js';

export {DibitError} from './wasm.js';
export {Generation} from './language.js';
export type {ModelFiles} from './folder.js';
export type {EmbedOptions, Explanation, Finish, GenerateOptions, GenerationInfo, KernelUse, LanguageModel,
             Message, ModelDescription, Sampling} from './language.js';
export type {Progress} from './lm.js';

export interface LoadOptions extends InlineOptions {
    /** Runs in a worker, so that the page stays smooth. Default: on pages, unless gpuDevice is given. */
    worker?: boolean;
}

/** Loads a language model: a folder as Hugging Face, transformers.js or onnxruntime-genai have it.
 *
 *     const lm = await load('https://huggingface.co/OWNER/NAME');
 *     for await (const piece of lm.chat([{role: 'user', content: 'Why is the sky blue?'}])) show(piece);
 *     await lm.dispose();
 */
export async function load(from: ModelFiles, options: LoadOptions = {}): Promise<LanguageModel> {
    const {worker = typeof document !== 'undefined' && !options.gpuDevice, ...rest} = options;
    if (worker) return RemoteModel.load(from, rest);
    const {InlineModel} = await import('./lm.js');
    return InlineModel.load(from, rest);
}

function startWorker(): Worker {
    const url = new URL('./worker.js', import.meta.url), options = {type: 'module', name: 'dibit'} as const;
    if (url.origin === location.origin || url.protocol === 'blob:') {
        return new Worker(new URL('./worker.js', import.meta.url), {type: 'module', name: 'dibit'});
    }
    /* Browsers start workers from the page's own origin alone; what such a one imports may come from
     * anywhere. */
    const blob = URL.createObjectURL(new Blob([`import ${JSON.stringify(url.href)}`], {type: 'text/javascript'}));
    const worker = new Worker(blob, options);
    setTimeout(() => URL.revokeObjectURL(blob), 60_000);
    return worker;
}

class RemoteModel implements LanguageModel {
    private constructor(private readonly worker: Worker, private readonly caller: Caller,
                        readonly model: ModelDescription) {}

    static async load(from: ModelFiles, {onProgress, signal, ...options}: InlineOptions): Promise<RemoteModel> {
        const worker = startWorker(), caller = new Caller(worker);
        worker.addEventListener('error', event =>
            caller.fail(new Error(event.message || 'the worker cannot be started')));
        try {
            const model = await caller.call<ModelDescription>('load', [cloneable(from), {
                ...options, wasm: options.wasm && new URL(options.wasm, document.baseURI).href,
            }], {onEvent: onProgress as (event: never) => void, signal});
            return new RemoteModel(worker, caller, model);
        } catch (e) {
            worker.terminate();
            throw e;
        }
    }

    chat(messages: Message[], {signal, ...options}: GenerateOptions = {}): Generation {
        return new Generation(this.pieces('chat', [messages, options], signal));
    }

    complete(text: string, {signal, ...options}: GenerateOptions = {}): Generation {
        return new Generation(this.pieces('complete', [text, options], signal));
    }

    private async *pieces(call: string, args: unknown[], signal?: AbortSignal): Pieces {
        const left = new AbortController(), queue: string[] = [];
        const all = signal ? AbortSignal.any([signal, left.signal]) : left.signal;
        let wake = () => {}, ended = false;
        const answer = this.caller.call<GenerationInfo>(call, args, {
            onEvent: (piece: string) => {
                queue.push(piece);
                wake();
            },
            signal: all,
        } as never);
        const end = () => {
            ended = true;
            wake();
        };
        answer.then(end, end);
        try {
            for (;;) {
                if (queue.length > 0) yield queue.splice(0).join('');
                else if (ended) return await answer;
                else await new Promise<void>(resolve => (wake = resolve));
            }
        } finally {
            left.abort();
        }
    }

    embed(texts: string[], {signal, ...options}: EmbedOptions = {}): Promise<Float32Array[]> {
        return this.caller.call('embed', [texts, options], {signal});
    }

    explain(): Promise<Explanation> {
        return this.caller.call('explain', []);
    }

    async dispose(): Promise<void> {
        try {
            await this.caller.call('dispose', []);
        } finally {
            this.caller.fail(new Error('the model was disposed of'));
            this.worker.terminate();
        }
    }
}

/* URLs become absolute here: a worker has an address of its own. Files and handles go as they are. */
function cloneable(from: ModelFiles): string | FileSystemDirectoryHandle | File[] {
    if (typeof from === 'string' || from instanceof URL) return new URL(from, document.baseURI).href;
    return 'getFileHandle' in from ? from : [...from];
}
