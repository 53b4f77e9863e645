// What transformers.js is asked to do on one device, in Node and in pages: everything comes back as plain values.

/** `T` is transformers.js, which finds the models 'tiny' (it generates) and 'encoder'. */
export async function checks(T, {device, texts, maxTokens}) {
    const options = {device, dtype: 'q2', use_external_data_format: true};
    const generator = await T.pipeline('text-generation', 'tiny', options), {tokenizer, model} = generator;
    const row = ids => ({
        input_ids: new T.Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]), attention_mask: T.ones([1, ids.length]),
    });
    const generate = async (input, more) => {
        const {sequences, past_key_values} = await model.generate({
            ...input.input_ids ? input : tokenizer(input, {padding: true}), max_new_tokens: maxTokens, do_sample: false, return_dict_in_generate: true, ...more,
        });
        return {ids: sequences.tolist().map(row => row.map(Number)), past_key_values};
    };
    const alone = [];
    for (const text of texts) alone.push((await generate(text)).ids[0]);
    const together = (await generate(texts)).ids;
    const drawn = (await generate(texts[0], {do_sample: true, top_k: 1, temperature: 0.7})).ids[0];
    const [{generated_text}] = await generator(texts[0], {max_new_tokens: maxTokens, do_sample: true, top_k: 5});

    /* Turns: with the cache of the one before; and twice with one that is older by then. */
    const first = await generate(texts[0]), turns = [];
    for (const more of [' and then', ' but never']) {
        const next = row([...first.ids[0], ...tokenizer(more).input_ids.tolist()[0]]);
        const kept = await generate(next, {past_key_values: first.past_key_values});
        turns.push({kept: kept.ids[0], fresh: (await generate(next)).ids[0]});
    }
    await generator.dispose();

    const extractor = await T.pipeline('feature-extraction', 'encoder', options);
    const features = (await extractor(texts, {pooling: 'mean', normalize: true})).tolist();
    const rows = (await extractor(texts[0])).dims;
    await extractor.dispose();
    return {alone, together, drawn, text: generated_text, turns, features, rows, helpers: await helpers(T)};
}

/* The models that the library makes itself: what runs, and what does not. */
async function helpers(T) {
    const of = (values, dims) => new T.Tensor('float32', Float32Array.from(values), dims);
    const image = of([1, 2, 3, 4], [1, 1, 2, 2]), why = promise => promise.then(() => 'no error', e => e.message);
    const [values, indices] = await T.topk(of([1, 5, 3, 2], [4]), 2);
    return {
        topk: [values.tolist(), indices.tolist().map(Number)],
        slice: (await T.slice(of([1, 2, 3, 4, 5, 6], [2, 3]), [0, 1], [2, 3], [0, 1])).tolist(),
        matmul: (await T.matmul(of([1, 2, 3, 4], [2, 2]), of([1, 2, 3, 4], [2, 2]))).tolist(),
        resize: await Promise.all(['nearest', 'bilinear', 'bicubic'].map(mode =>
            why(T.interpolate_4d(image, {size: [4, 4], mode})))),
        dft: await why(T.rfft(of([1, 2, 3, 4], [1, 4, 1]), new T.Tensor('int64', BigInt64Array.of(1n), []))),
    };
}
