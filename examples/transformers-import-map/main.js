// transformers.js on Dibit in a page without a bundler, by index.html's import map alone. ?name=OWNER/NAME names the model,
// ?models=URL where it is if not on Hugging Face, ?device= webgpu or wasm.
import {env, pipeline, TextStreamer} from '@huggingface/transformers';

const asked = new URLSearchParams(location.search), out = document.querySelector('output');
env.allowLocalModels = false;
if (asked.has('models')) {
    env.remoteHost = asked.get('models');
    env.remotePathTemplate = '{model}/';
}
const generator = await pipeline('text-generation', asked.get('name'), {
    device: asked.get('device') ?? 'webgpu', dtype: 'q2', use_external_data_format: true,
});
const streamer = new TextStreamer(generator.tokenizer, {
    skip_prompt: true, skip_special_tokens: true, callback_function: text => out.append(text),
});
await generator([{role: 'user', content: asked.get('prompt') ?? 'Why is the sky blue?'}],
                {max_new_tokens: Number(asked.get('tokens') ?? 100), do_sample: false, streamer});
out.dataset.done = 'yes';
