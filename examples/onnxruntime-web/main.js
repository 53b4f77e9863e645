// A program for onnxruntime-web, which has no kernel for 2 bits with zero points on WebGPU: the alias in package.json runs it on
// Dibit. model.onnx is any language model with a past, for example tests/data/cases/llama.q2.
import * as ort from 'onnxruntime-web';

export async function nextTokens(model, ids, count, options = {executionProviders: ['webgpu', 'wasm']}) {
    const session = await ort.InferenceSession.create(model, options);
    const pasts = session.inputMetadata.filter(i => i.name.startsWith('past'));
    let past = Object.fromEntries(pasts.map(({name, type, shape}) => {
        const dims = shape.map((d, axis) => axis === 0 ? 1 : typeof d === 'number' ? d : 0);
        const size = dims.reduce((n, d) => n * d, 1);
        return [name, new ort.Tensor(type, type === 'float16' ? new Uint16Array(size) : new Float32Array(size), dims)];
    }));
    const tokens = [];
    for (let fed = ids, total = ids.length; tokens.length < count; total++) {
        const outputs = await session.run({
            input_ids: new ort.Tensor('int64', BigInt64Array.from(fed, BigInt), [1, fed.length]),
            attention_mask: new ort.Tensor('int64', new BigInt64Array(total).fill(1n), [1, total]),
            ...past,
        });
        const {data, dims} = outputs.logits, last = data.subarray((dims[1] - 1) * dims[2]);
        fed = [last.indexOf(last.reduce((a, b) => Math.max(a, b)))];
        tokens.push(fed[0]);
        past = Object.fromEntries(pasts.map(({name}) => [name, outputs[name.replace('past_key_values', 'present')]]));
    }
    await session.release();
    return tokens;
}

if (globalThis.document) {
    const tokens = await nextTokens(new URL('model.onnx', location).href, [3, 141, 59, 26, 5], 8);
    document.querySelector('output').textContent = tokens.join(' ');
}
