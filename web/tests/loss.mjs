// A GPU that is lost while a text is generated: the CPU goes on, and no token is lost or said twice.
import assert from 'node:assert/strict';

import {link} from './site.mjs';
import {smallFolder} from './support.mjs';

/** Runs in a page, or here. */
export async function generateAndLose({scripts, folder, moments}) {
    const {load} = await import(scripts);
    const generate = async (lm, stopAt, stop) => {
        const generation = lm.complete('the first of all', {maxTokens: 40, temperature: 0});
        let pieces = 0;
        for await (const _ of generation) {
            if (++pieces === stopAt) stop();
        }
        return generation.info;
    };
    const options = {activations: 'float', cache: false, worker: false}, all = [];
    const onCpu = await load(folder, {...options, device: 'wasm'}), cpu = (await generate(onCpu)).tokens;
    await onCpu.dispose();
    for (const moment of moments) {
        const adapter = await navigator.gpu.requestAdapter(), {limits} = adapter;
        const gpuDevice = await adapter.requestDevice({requiredLimits: {
            maxStorageBuffersPerShaderStage: limits.maxStorageBuffersPerShaderStage,
        }});
        const lm = await load(folder, {...options, device: 'auto', gpuDevice}), before = (await lm.explain()).device;
        const {tokens, fallback} = await generate(lm, moment, () => gpuDevice.destroy());
        const after = await lm.explain();
        all.push({tokens, fallback, before, after: after.device, ofGpu: !!(after.adapter ?? after.features)});
        await lm.dispose();
    }
    return {cpu, all};
}

/** Destroys the device after so many pieces of the text, once for each number. */
export const checkLoss = async (opened, moments) => judgeLoss(await opened.evaluate(generateAndLose, {
    scripts: '/dibit/index.js', folder: link(smallFolder('llama.q2'), 'small'), moments,
}), moments);

export function judgeLoss({cpu, all}, moments) {
    assert.equal(cpu.length, 40);
    assert.equal(all.length, moments.length);
    assert.ok(all.some(one => one.fallback), 'the texts ended before their GPUs were lost');
    for (const {tokens, fallback, before, after, ofGpu} of all) {
        assert.deepEqual(tokens, cpu);
        assert.doesNotMatch(before, /^cpu/);
        if (!fallback) continue; /* tokens come in bunches: the text was complete */
        assert.match(after, /^cpu/);
        assert.equal(ofGpu, false);
        assert.match(fallback, /CPU took over: .*(destroyed|lost)/);
    }
}
