// Greedy text of the shipped model, by load() anywhere, judged by native code (tests/test_greedy.c): every token is the
// one with the CPU's highest logit, up to a near tie.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {existsSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

import {model, root, scratch} from './support.mjs';

const judge = join(root, 'build/test/tests/test_greedy'), file = join(root, 'tests/data/greedy_prompts.txt');

export const noJudge = !existsSync(judge) && 'the native tests are not built';

const prompts = readFileSync(file, 'utf8').replace(/\n$/, '').split('\n%%\n');

/** Runs in a page, or here: {answers: [{tokens, finish}], int8, device}. */
export async function generate({scripts, folder, device, prompts, maxTokens}) {
    const {load} = await import(scripts);
    const lm = await load(folder, {device, cache: false}), answers = [];
    for (const content of prompts) {
        const generation = lm.chat([{role: 'user', content}], {maxTokens, temperature: 0});
        await generation.text();
        answers.push({tokens: generation.info.tokens, finish: generation.info.finish});
    }
    const {kernels, device: name} = await lm.explain();
    await lm.dispose();
    return {answers, int8: kernels.some(k => k.kernel.includes('int8')), device: name};
}

/** Lets the first of the prompts be answered by `run`, which passes its argument to generate(). */
export async function checkGreedy(where, run, {device, count = prompts.length, maxTokens = 64}) {
    const {answers, int8, device: name} = await run({device, prompts: prompts.slice(0, count), maxTokens});
    assert.equal(answers.length, count);
    const folder = join(scratch, 'greedy'), out = join(folder, `${where}-${device}.txt`);
    mkdirSync(folder, {recursive: true});
    writeFileSync(out, answers.map(({tokens, finish}) =>
        `${[...tokens, ...finish === 'stop' ? ['stop'] : []].join(' ')}\n`).join(''));
    const report = execFileSync(judge, [model, file, '--answers', out, '--activations', int8 ? 'int8' : 'float'],
                                {encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit']});
    console.log(`${where}, ${device} (${name}): ${/^(int8|float): .*/m.exec(report)?.[0]}`);
    assert.match(report, new RegExp(` of ${count} prompts .* 0 wrong`));
    return report;
}
