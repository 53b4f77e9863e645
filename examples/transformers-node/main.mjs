// transformers.js on Dibit in Node, by package.json's "overrides" alone. Runs a model below a local folder:
//   node main.mjs MODELS_DIR NAME [DEVICE] [PROMPT]      DEVICE: cpu, or webgpu with the npm package webgpu
import {env, pipeline, TextStreamer} from '@huggingface/transformers';

const [models, name, device = 'cpu', prompt = 'Why is the sky blue?'] = process.argv.slice(2);
if (!name) {
    console.error('usage: node main.mjs MODELS_DIR NAME [DEVICE] [PROMPT]');
    process.exit(2);
}
env.localModelPath = models;
env.allowRemoteModels = false;

const generator = await pipeline('text-generation', name, {device, dtype: 'q2'});
const streamer = new TextStreamer(generator.tokenizer, {skip_prompt: true, skip_special_tokens: true});
await generator([{role: 'user', content: prompt}], {max_new_tokens: 100, do_sample: false, streamer});
await generator.dispose();
