/* The worker that index.ts starts: one language model, called by messages. */
import {InlineModel} from './lm.js';
import {answerCalls} from './messages.js';

import type {Generation, GenerateOptions, Message} from './language.js';
import type {InlineOptions} from './lm.js';
import type {ModelFiles} from './folder.js';
import type {Port} from './messages.js';

let model: InlineModel | undefined;

async function stream(generation: Generation, event: (piece: string) => void): Promise<unknown> {
    for await (const piece of generation) event(piece);
    return generation.info;
}

answerCalls(globalThis as unknown as Port, async (call, args, {event, signal}) => {
    if (call === 'load') {
        const [from, options] = args as unknown as [ModelFiles, InlineOptions];
        model = await InlineModel.load(from, {...options, signal, onProgress: event});
        return model.model;
    }
    if (!model) throw new Error('no model is loaded');
    switch (call) {
    case 'chat': {
        const [messages, options] = args as unknown as [Message[], GenerateOptions];
        return stream(model.chat(messages, {...options, signal}), event);
    }
    case 'complete': {
        const [text, options] = args as unknown as [string, GenerateOptions];
        return stream(model.complete(text, {...options, signal}), event);
    }
    case 'embed': {
        const [texts, options] = args as unknown as [string[], object];
        return model.embed(texts, {...options, signal});
    }
    case 'explain': return model.explain();
    case 'dispose': return model.dispose();
    default: throw new Error(`there is no call '${call}'`);
    }
});
