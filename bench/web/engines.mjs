// In the page: Dibit and onnxruntime-web through the same calls, in turn.
const WARM_UP = 3000; /* milliseconds */
const median = list => [...list].sort((a, b) => a - b)[list.length >> 1];

async function load(engine, device) {
    if (engine === 'dibit') return import('/dibit/ort.js');
    const ort = await import(device === 'webgpu' ? '/onnxruntime-web/ort.webgpu.min.mjs' : '/onnxruntime-web/ort.wasm.min.mjs');
    Object.assign(ort.env.wasm, {wasmPaths: '/onnxruntime-web/', numThreads: 1});
    ort.env.logLevel = 'error';
    return ort;
}

const cosine = (a, b) => {
    let ab = 0, aa = 0, bb = 0;
    a.forEach((x, i) => {
        ab += x * b[i];
        aa += x * x;
        bb += b[i] * b[i];
    });
    return ab / Math.sqrt(aa * bb);
};

/** A chain of layers on one device: milliseconds a layer, each round once with each engine. */
export async function compareChain({url, device, rows, size, layers, rounds}) {
    const engines = {}, data = Float32Array.from({length: rows * size}, (_, i) => Math.sin(i * 12.9898) * 1.7);
    for (const engine of ['dibit', 'onnxruntime-web']) {
        const ort = await load(engine, device);
        const session = await ort.InferenceSession.create(url, {executionProviders: [device]});
        const run = async () => (await session.run({x: new ort.Tensor('float32', data, [rows, size])})).y.data;
        engines[engine] = {session, run, first: Float32Array.from(await run()), times: []};
    }
    const {dibit, 'onnxruntime-web': peer} = engines;
    for (const {run} of Object.values(engines)) { /* browsers compile hot loops again, better */
        for (const start = performance.now(); performance.now() - start < WARM_UP;) await run();
    }
    for (let round = 0; round < rounds; round++) {
        for (const {run, times} of Object.values(engines)) {
            const start = performance.now();
            await run();
            times.push((performance.now() - start) / layers);
        }
    }
    for (const {session} of Object.values(engines)) await session.release();
    return {dibit: dibit.times, peer: peer.times, cosine: cosine(dibit.first, peer.first),
            medians: [median(dibit.times), median(peer.times)]};
}

const modules = {dibit: '/lm/dibit.js', 'onnxruntime-web': '/lm/peer.js'};

/** transformers.js's pipeline for a model of this server, on one engine. */
export async function openModel(engine, name, device) {
    const {env, pipeline, TextStreamer} = await import(modules[engine]);
    Object.assign(env, {allowLocalModels: false, remoteHost: `${location.origin}/models/`, remotePathTemplate: '{model}/'});
    if (engine !== 'dibit') Object.assign(env.backends.onnx.wasm, {wasmPaths: '/transformers-ort/', numThreads: 1});
    const generator = await pipeline('text-generation', name, {device, dtype: 'q2', use_external_data_format: true});
    return {
        generator,
        /** Milliseconds from now to each token, and the text. */
        async generate(prompt, tokens) {
            const times = [], start = performance.now();
            const streamer = new TextStreamer(generator.tokenizer, {
                skip_prompt: true, callback_function: () => {}, token_callback_function: () => times.push(performance.now() - start),
            });
            const [{generated_text}] = await generator(prompt, {
                max_new_tokens: tokens, min_new_tokens: tokens, do_sample: false, streamer,
            });
            return {times, text: generated_text};
        },
    };
}

/** The same program on both engines in one page: tokens/s after the first token, and milliseconds to it. */
export async function compareModel({name, device, prompt, tokens, rounds}) {
    const engines = {};
    for (const engine of Object.keys(modules)) {
        const e = engines[engine] = {rates: [], first: []};
        try {
            e.model = await openModel(engine, name, device);
            e.text = (await e.model.generate(prompt, 1)).text;
        } catch (error) {
            e.error = `refused: ${error.message.replace(/.*ERROR_MESSAGE: /s, '')}`;
        }
    }
    const able = Object.values(engines).filter(e => !e.error);
    for (let round = 0; round < rounds; round++) {
        for (const e of able) {
            const {times, text} = await e.model.generate(prompt, tokens);
            e.text = text;
            e.rates.push(1000 * (times.length - 1) / (times.at(-1) - times[0]));
            e.first.push(times[0]);
        }
    }
    for (const {model} of able) await model.generator.dispose();
    const of = ({rates, first, text, error}) => error ? {error} : {rates, text, rate: median(rates), first: median(first)};
    return {dibit: of(engines.dibit), peer: of(engines['onnxruntime-web'])};
}

/** From the navigation to the first token of a page that has done nothing yet: milliseconds. */
export async function firstToken({engine, name, device, prompt}) {
    if (engine === 'dibit, its own API') {
        const {load: open} = await import('/dibit/index.js');
        const lm = await open(`/models/${name}/`, {device, model: 'onnx/model_q2.onnx'});
        for await (const piece of lm.complete(prompt, {maxTokens: 1})) void piece;
        return performance.now();
    }
    const {generate} = await openModel(engine, name, device);
    await generate(prompt, 1);
    return performance.now();
}
