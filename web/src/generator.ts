/* The engine's generation loop (dibit_generator of lm.h) as an async generator of token ids. */
import {DibitError, OK, Pointer, Scope, Wasm} from './wasm.js';

import type {Session} from './engine.js';
import type {Finish} from './language.js';

const FINISHES: (Finish | 'none')[] = ['none', 'stop', 'length', 'context', 'cancelled'];

export interface GeneratorSampling {
    temperature: number;
    topK: number;
    topP: number;
    minP: number;
    repetitionPenalty: number;
    seed: bigint;
}

/** One sequence to continue. */
export interface Sequence {
    state: Pointer;
    prompt: number[];
    /** What the state holds, for the repetition penalty. */
    past: number[];
    stop: number[];
    sampling: GeneratorSampling;
    maxTokens: number;
    signal?: AbortSignal;
}

export class Generator {
    private at: Pointer;

    private readonly wasm: Wasm;

    constructor(session: Session, contextLength: number) {
        const {wasm} = session;
        this.wasm = wasm;
        using scope = new Scope(wasm);
        const out = scope.zeros(4);
        wasm.try('dibit_generator_create', scope.struct('dibit_generator_desc', {
            model: session.model.pointer, session: session.pointer, context_length: contextLength,
        }), out);
        this.at = wasm.view.getUint32(out, true);
    }

    dispose(): void {
        using scope = new Scope(this.wasm);
        const at = scope.alloc(4);
        this.wasm.view.setUint32(at, this.at, true);
        this.wasm.call('dibit_generator_destroy', at);
        this.at = 0;
    }

    /** Gives tokens as they come, some at a time. What came before a failure is given first. */
    async *run(sequence: Sequence): AsyncGenerator<number[], Finish, void> {
        const {wasm} = this;
        using scope = new Scope(wasm);
        const tokens = scope.alloc(8 * sequence.maxTokens);
        const one = this.sequenceStruct(scope, sequence, tokens);
        wasm.try('dibit_generator_begin', this.at,
                 scope.struct('dibit_generation', {sequences: one, n_sequences: 1}));
        let given = 0, running = true;
        const fresh = () => {
            const n = wasm.get('dibit_sequence', one, 'n_tokens'), ids: number[] = [];
            for (; given < n; given++) ids.push(Number(wasm.view.getBigInt64(tokens + 8 * given, true)));
            return ids;
        };
        try {
            while (running) {
                sequence.signal?.throwIfAborted();
                let failure: unknown;
                try {
                    running = wasm.try('dibit_generator_poll', this.at) !== OK;
                } catch (e) {
                    failure = e;
                }
                const ids = fresh();
                if (ids.length > 0) yield ids;
                if (failure) throw failure;
                if (running) await wasm.waiter.wait();
            }
        } finally {
            wasm.call('dibit_generator_cancel', this.at);
        }
        const finish = FINISHES[wasm.get('dibit_sequence', one, 'finish')];
        if (finish === 'none') throw new DibitError('BAD_STATE', 'the generation has not finished');
        return finish;
    }

    private sequenceStruct(scope: Scope, s: Sequence, tokens: Pointer): Pointer {
        const {wasm} = this;
        const ids = (list: number[]) => scope.data(new Uint8Array(BigInt64Array.from(list, BigInt).buffer));
        const at = scope.struct('dibit_sequence', {
            state: s.state, prompt: ids(s.prompt), n_prompt: s.prompt.length,
            past: ids(s.past), n_past: s.past.length, stop: ids(s.stop), n_stop: s.stop.length,
            tokens, max_tokens: s.maxTokens,
        });
        const sampling = at + wasm.offset('dibit_sequence.sampling');
        for (const [field, value] of Object.entries({
            temperature: s.sampling.temperature, top_k: s.sampling.topK, top_p: s.sampling.topP,
            min_p: s.sampling.minP, repetition_penalty: s.sampling.repetitionPenalty,
            seed: s.sampling.seed,
        })) wasm.set('dibit_sampling', sampling, field, value);
        return at;
    }
}
