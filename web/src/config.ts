/* What a model's JSON files say about its file, context, stop tokens and sampling: the same rules as the
 * native library's src/lm/lm.c, which lib tests compare. */
import {object} from './model_file.js';
import {tokenText} from './text.js';

import type {ModelDescription, Sampling} from './language.js';
import type {Configs, Json} from './model_file.js';

export {namedModel} from './model_file.js';

function number(from: Json | undefined, key: string, where: string): number | undefined {
    const value = from?.[key];
    if (value === undefined || value === null) return undefined;
    if (typeof value !== 'number') throw new Error(`${where}.${key} is no number`);
    return value;
}

/** Tokens that end a text. */
export function stopTokens(configs: Configs, id: (piece: string) => number | undefined,
                           template: string | undefined): number[] {
    const stops = new Set<number>();
    const files: [Json | undefined, string][] = [
        [configs.generation, 'generation_config.json'],
        [object(configs.genai?.model), 'genai_config.json: model'], [configs.config, 'config.json'],
    ];
    for (const [file, where] of files) {
        const value = file?.eos_token_id;
        if (value === undefined || value === null) continue;
        for (const stop of Array.isArray(value) ? value : [value]) {
            if (!Number.isInteger(stop)) {
                throw new Error(`${where}.eos_token_id is no number and no list of numbers`);
            }
            if (stop >= 0) stops.add(stop);
        }
    }
    const pieces = [tokenText(configs.tokenizer?.eos_token)];
    if (template?.includes('<|im_end|>')) pieces.push('<|im_end|>');
    for (const piece of pieces) {
        const stop = piece === undefined ? undefined : id(piece);
        if (stop !== undefined) stops.add(stop);
    }
    return [...stops];
}

/* Values count when the file asks for sampling; top_k's default is Hugging Face's. */
function advisedSampling(from: Json | undefined, where: string): Required<Omit<Sampling, 'seed'>> {
    const sample = from?.do_sample === true;
    const value = (key: string, fallback: number) => number(from, key, where) ?? fallback;
    return {
        temperature: sample ? value('temperature', 1) : 0,
        topK: sample ? value('top_k', 50) : 0,
        topP: sample ? value('top_p', 0) : 0,
        minP: sample ? value('min_p', 0) : 0,
        repetitionPenalty: value('repetition_penalty', 0),
    };
}

function contextLength(configs: Configs): number {
    const genai = number(object(configs.genai?.model), 'context_length', 'genai_config.json: model');
    if (genai) return genai;
    for (const key of ['max_position_embeddings', 'n_positions', 'n_ctx']) {
        const length = number(configs.config, key, 'config.json');
        if (length) return length;
    }
    return 0;
}

export function describe(configs: Configs, chat: boolean, generates: boolean): Omit<ModelDescription, 'file'> {
    const type = configs.config?.model_type ?? object(configs.genai?.model)?.type;
    return {
        type: typeof type === 'string' ? type : '',
        contextLength: contextLength(configs),
        chat,
        generates,
        sampling: configs.generation
            ? advisedSampling(configs.generation, 'generation_config.json')
            : advisedSampling(object(configs.genai?.search), 'genai_config.json: search'),
    };
}

/** tokenizer_config.json's "chat_template": a text, or a list of named ones. */
export function insideTemplate(config: Json | undefined): string | undefined {
    const inside = config?.chat_template;
    if (typeof inside === 'string') return inside;
    if (!Array.isArray(inside)) return undefined;
    return inside.find(entry => object(entry)?.name === 'default')?.template;
}
