/* The public types of a language model, and a generation as its caller sees it: the same whether the
 * model runs in a worker or here. */

export interface Message {
    role: string; /* 'system', 'user', 'assistant', or what the model's template knows */
    content: string;
}

/** How the next token is chosen, in this order: repetition penalty, temperature, topK, topP, minP, draw.
 * What is left out is as the model's files advise. */
export interface Sampling {
    /** Logits are divided by it; 0: always the likeliest token. */
    temperature?: number;
    /** Only the k likeliest; 0: all. */
    topK?: number;
    /** Then only the likeliest that together have probability p; 0 or 1: all. */
    topP?: number;
    /** Then only those with at least p times the best's probability. */
    minP?: number;
    /** Logits of tokens that occurred are divided by it when positive, else multiplied; 0 or 1: none. */
    repetitionPenalty?: number;
    /** The same seed, prompt and options give the same text. Default: another one each time. */
    seed?: number | bigint;
}

export interface GenerateOptions extends Sampling {
    /** Default 1024. */
    maxTokens?: number;
    /** Ends the generation: the iteration then throws the signal's reason. */
    signal?: AbortSignal;
    /** More variables for the chat template, for example {enable_thinking: false}. */
    template?: Record<string, unknown>;
}

/** Why a text ended: a stop token came, maxTokens were generated, the model's context is full, or the
 * caller ended it. */
export type Finish = 'stop' | 'length' | 'context' | 'cancelled';

export interface GenerationInfo {
    finish: Finish;
    promptTokens: number;
    /** Tokens of the prompt that the model still held from earlier turns, and that were not fed again. */
    cachedTokens: number;
    tokens: number[];
    /** Milliseconds from the call to the first token. */
    firstTokenMs: number;
    /** After the first token. */
    tokensPerSecond: number;
    seed: bigint;
    /** One sentence when the device was lost on the way and the CPU took over; else ''. */
    fallback: string;
}

export interface EmbedOptions {
    /** How a text's tokens become one vector. Default: as the model's folder says (1_Pooling/config.json),
     * else 'mean'. */
    pooling?: 'mean' | 'cls' | 'last';
    /** Scale to length 1; default true. */
    normalize?: boolean;
    signal?: AbortSignal;
}

export interface KernelUse {
    op: string;
    device: string;
    kernel: string;
    /** Steps of the plan that it runs. */
    steps: number;
    /** Why it runs there and with that kernel; '' when there is nothing to say. */
    why: string;
}

/** What runs where, and what it takes. */
export interface Explanation {
    /** The adapter as it calls itself, or "cpu, ..." with the instructions in use. */
    device: string;
    /** Why this device: what was asked for, and what was missing. */
    why: string;
    /** Of the GPU, while it computes. */
    adapter?: {vendor: string; architecture: string; description: string; isFallbackAdapter: boolean};
    features?: string[];
    /** Which of the two binaries runs: 'relaxed SIMD' or 'SIMD'. */
    binary: string;
    memory: {weights: number; packed: number; plan: number; workspace: number; wasm: number};
    kernels: KernelUse[];
    steps: number;
    cpuSteps: number;
}

export interface ModelDescription {
    /** 'llama', 'bert', ...; '' when no file says. */
    type: string;
    /** The model's file in its folder. */
    file: string;
    /** Most tokens the model was made for; 0 when no file says. */
    contextLength: number;
    /** Whether it has a chat template. */
    chat: boolean;
    /** Whether it generates text; else it embeds. */
    generates: boolean;
    sampling: Required<Omit<Sampling, 'seed'>>;
}

export interface LanguageModel {
    readonly model: ModelDescription;
    /** Answers a conversation, piece by piece. Continuing an earlier conversation feeds what is new. */
    chat(messages: Message[], options?: GenerateOptions): Generation;
    /** Continues a text as it is, without the chat template. */
    complete(text: string, options?: GenerateOptions): Generation;
    /** One vector for each text, for models that embed. */
    embed(texts: string[], options?: EmbedOptions): Promise<Float32Array[]>;
    explain(): Promise<Explanation>;
    /** Frees everything; what is under way ends. */
    dispose(): Promise<void>;
}

/** What makes the pieces of a text: it ends with the figures. */
export type Pieces = AsyncGenerator<string, GenerationInfo, void>;

/** A text on its way: iterate over it, or await text(). Leaving the loop ends it. */
export class Generation implements AsyncIterable<string> {
    /** The figures, once the text has ended. */
    info?: GenerationInfo;

    constructor(private readonly pieces: Pieces) {}

    async *[Symbol.asyncIterator](): AsyncGenerator<string, void, void> {
        try {
            for (;;) {
                const next = await this.pieces.next();
                if (next.done) {
                    this.info = next.value;
                    return;
                }
                yield next.value;
            }
        } finally {
            await this.pieces.return(undefined as never);
        }
    }

    /** All of it. */
    async text(): Promise<string> {
        let all = '';
        for await (const piece of this) all += piece;
        return all;
    }
}
