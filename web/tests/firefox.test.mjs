// The engine in headless Firefox: on WebGPU through Vulkan (Mesa's lavapipe where there is no GPU), which here has
// shader-f16 and no subgroups, and on the CPU.
import assert from 'node:assert/strict';
import {basename, join} from 'node:path';
import {after, before, test} from 'node:test';
import {engineInPage, firefoxPath, openFirefox} from './browsers.mjs';
import {caseFolders, checkCase, isOfCpu, isSmall, share} from './cases.mjs';
import {checkGreedy, generate, noJudge} from './greedy.mjs';
import {checkLoss} from './loss.mjs';
import {cases} from './support.mjs';
import {Engine} from './web.mjs';

const full = process.env.DIBIT_FULL === '1';
const onlyFull = !full && 'only with DIBIT_FULL=1';
const skip = !firefoxPath && 'there is no Firefox';

let opened, cpu, noGpu = '';

before(async () => {
    if (skip) return;
    cpu = await Engine.create({device: 'wasm'});
    opened = await openFirefox();
    noGpu = await opened.evaluate(async () => {
        const adapter = await navigator.gpu?.requestAdapter();
        return adapter ? '' : `this Firefox has no ${navigator.gpu ? 'adapter for WebGPU' : 'WebGPU'}`;
    });
});
after(async () => {
    cpu?.dispose();
    await opened?.stop();
});

const onGpu = caseFolders.filter(folder => !isOfCpu(folder));
const ON = {
    wasm: full ? caseFolders : share(caseFolders, 12, 5),
    webgpu: full ? onGpu : [...share(onGpu.filter(isSmall), 14, 7), join(cases, 'llama.q2')],
};

for (const [device, folders] of Object.entries(ON)) {
    for (let at = 0; at < folders.length; at += 20) {
        const part = folders.slice(at, at + 20);
        test(`Firefox, ${device}: ${part.map(folder => basename(folder)).join(', ')}`, {skip}, async t => {
            if (device === 'webgpu' && noGpu) return t.skip(noGpu);
            const engine = await engineInPage(opened, {device});
            assert.equal(engine.device, device);
            for (const folder of part) assert.deepEqual(await checkCase(folder, engine, cpu), [], folder);
            await engine.dispose();
        });
    }
}

test('Firefox, webgpu: every code comes back through the kernels', {skip: skip || onlyFull}, async t => {
    if (noGpu) return t.skip(noGpu);
    const {failed, passed, text} = await opened.evaluate(async () => {
        const {formatReport, verify} = await import('/dibit/verify.js');
        const report = await verify({device: 'webgpu'});
        return {...report, text: formatReport(report)};
    });
    console.log(text);
    assert.ok(passed > 0 && failed === 0);
});

test('Firefox: a GPU that is lost in mid-generation', {skip}, async t => {
    if (noGpu) return t.skip(noGpu);
    await checkLoss(opened, full ? [1, 2, 3, 5, 8, 13, 21, 34] : [1, 4]);
});

for (const [device, maxTokens] of [['webgpu', 16], ['wasm', 64]]) {
    test(`Firefox, ${device}: greedy text`, {skip: skip || noJudge}, async t => {
        if (device === 'webgpu' && noGpu) return t.skip(noGpu);
        await checkGreedy('Firefox', options => opened.evaluate(generate, {
            ...options, scripts: '/dibit/index.js', folder: '/model/',
        }), {device, ...full ? {maxTokens} : {count: 2, maxTokens: 8}});
    });
}
