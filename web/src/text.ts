/* Text to tokens and back: the tokenizer, the chat template, and a stream of tokens as text. */
import {Template} from '@huggingface/jinja';
import {Tokenizer} from '@huggingface/tokenizers';

import {DibitError} from './wasm.js';

import type {Message} from './language.js';

/** tokenizer.json and tokenizer_config.json, parsed, as far as they are looked at here. */
export interface TokenizerFiles {
    tokenizer: {added_tokens?: {content: string; special?: boolean}[]};
    config: Record<string, unknown>;
    template?: string;
}

/* Breaks a special token that a message spells; a noncharacter, which no text has. */
const BREAK = '\uFDD0';

/** A token of tokenizer_config.json: a piece, or an object with its "content". */
export function tokenText(token: unknown): string | undefined {
    if (typeof token === 'string') return token;
    const content = (token as {content?: unknown} | null | undefined)?.content;
    return typeof content === 'string' ? content : undefined;
}

/* What the packages throw does not say of which file. */
function read<T>(file: string, make: () => T): T {
    try {
        return make();
    } catch (e) {
        throw new DibitError('BAD_FILE', `${file}: ${(e as Error).message}`);
    }
}

export class Text {
    private readonly tokenizer: Tokenizer;
    private readonly template?: Template;
    private readonly specials: string[];
    private withoutSpecials?: Tokenizer;

    constructor(private readonly files: TokenizerFiles) {
        this.tokenizer = read('tokenizer.json', () => new Tokenizer(files.tokenizer, files.config));
        this.specials = (files.tokenizer.added_tokens ?? [])
            .filter(t => t.special && t.content.length > 1).map(t => t.content)
            .sort((a, b) => b.length - a.length);
        if (files.template) this.template = read('the chat template', () => new Template(files.template!));
    }

    get hasTemplate(): boolean {
        return this.template !== undefined;
    }

    id(piece: string): number | undefined {
        return this.tokenizer.token_to_id(piece);
    }

    encode(text: string): number[] {
        return this.tokenizer.encode(text).ids;
    }

    decode(ids: number[]): string {
        if (ids.length === 0) return '';
        return this.tokenizer.decode(
            ids, {skip_special_tokens: true, clean_up_tokenization_spaces: false});
    }

    /** The conversation as the model's template writes it, up to the opening of the next answer. Special
     * tokens inside of messages are spelled out: only the template can open or close a turn. */
    encodeChat(messages: Message[], variables: Record<string, unknown> = {}): number[] {
        if (!this.template) {
            throw new Error('the model has no chat template: use complete() with a prompt');
        }
        const tokens: Record<string, string> = {};
        for (const [key, value] of Object.entries(this.files.config)) {
            const text = key.endsWith('_token') ? tokenText(value) : undefined;
            if (text !== undefined) tokens[key] = text;
        }
        const safe = messages.map(m => ({...m, content: this.spell(m.content)}));
        return this.encodeRendered(this.template.render(
            {...tokens, add_generation_prompt: true, ...variables, messages: safe}));
    }

    private spell(content: string): string {
        for (const s of this.specials) content = content.replaceAll(s, s[0] + BREAK + s.slice(1));
        return content;
    }

    private encodeRendered(text: string): number[] {
        const encode = (tokenizer: Tokenizer, part: string) =>
            tokenizer.encode(part, {add_special_tokens: false}).ids;
        if (!text.includes(BREAK)) return encode(this.tokenizer, text);
        const plain = this.withoutSpecials ??= new Tokenizer({
            ...this.files.tokenizer,
            added_tokens: this.files.tokenizer.added_tokens!.filter(t => !t.special),
        }, this.files.config);
        const escaped = this.specials.map(s => s.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
        return text.split(new RegExp(`(${escaped.join('|')})`)).flatMap((part, i) => {
            if (i % 2 === 1) return [this.id(part)!];
            return part ? encode(plain, part.replaceAll(BREAK, '')) : [];
        });
    }

    stream(): TextStream {
        return new TextStream(this);
    }
}

/** Tokens as they come, as text that never ends inside of a character. All that push and end give is what
 * decode gives for the whole list. */
export class TextStream {
    private ids: number[] = [];
    private said = 0; /* characters of the window's text that were given */

    constructor(private readonly text: Text) {}

    /** The text that is now certain, perhaps none. */
    push(...ids: number[]): string {
        this.ids.push(...ids);
        const text = this.text.decode(this.ids);
        if (text.length <= this.said || text.endsWith('\uFFFD')) return '';
        const piece = text.slice(this.said);
        /* Tokens before the last line break or so need not be decoded again. A token stays in front, so
         * that what follows is not taken for the beginning of a text. */
        const last = this.ids.at(-1)!, alone = this.text.decode([last]);
        if (this.ids.length > 16 && alone !== '' && text.endsWith(alone)) {
            this.ids = [last];
            this.said = alone.length;
        } else {
            this.said = text.length;
        }
        return piece;
    }

    /** What was held back. */
    end(): string {
        const piece = this.text.decode(this.ids).slice(this.said);
        this.ids = [];
        this.said = 0;
        return piece;
    }
}
