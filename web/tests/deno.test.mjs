// The package under Deno: tests of its own, on the CPU and on Deno's WebGPU. DIBIT_DENO is a binary to use; else npm brings one.
import assert from 'node:assert/strict';
import {execFile} from 'node:child_process';
import {existsSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {promisify} from 'node:util';

import {ownDrivers} from './browsers.mjs';
import {root} from './support.mjs';

const full = process.env.DIBIT_FULL === '1', out = join(root, 'build/web');

function findDeno() {
    const folder = join(out, 'node_modules/@deno');
    return process.env.DIBIT_DENO ?? (existsSync(folder) ? readdirSync(folder) : [])
        .map(name => join(folder, name, 'deno')).find(existsSync);
}

const deno = findDeno(), skip = !deno && 'there is no Deno for this machine';

async function run(file, ...more) {
    const env = {...ownDrivers(), NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1'};
    const args = ['test', '-A', '--no-check', '--node-modules-dir=manual', ...more, join(root, 'web/tests', file)];
    const {stdout} = await promisify(execFile)(deno, args, {cwd: out, env, maxBuffer: 1 << 24}).catch(e => {
        if (!e.signal || !/^ok \| /m.test(e.stdout)) throw new Error(`${e.stdout}\n${e.stderr}`);
        /* A script cannot break Deno's heap. Its driver does at times, when a lost GPU goes at the very end. */
        console.log(`Deno ended by ${e.signal} after its tests: ${e.stderr.trim().split('\n').at(-1)}`);
        return e;
    });
    const [, passed, failed] = /(\d+) passed.* \| (\d+) failed/.exec(stdout) ?? [];
    assert.ok(Number(passed) > 0 && Number(failed) === 0, stdout);
    console.log(`Deno: ${file}: ${passed} passed`);
    return stdout;
}

/* Without those that wait a lot. */
const QUICK_LM = ['--filter', '/native one|explain|wrong use/'];

for (const name of ['engine', 'text', 'lm', 'embed', 'ort', ...full ? ['sources', 'memory', 'cases'] : []]) {
    test(`Deno: ${name}`, {skip}, () => run(`${name}.test.mjs`, ...name === 'lm' && !full ? QUICK_LM : []));
}

test('Deno, webgpu: cases', {skip}, async t => {
    const text = await run('cases.test.mjs', '--filter', 'webgpu');
    if (/WebGPU finds no adapter/.test(text)) return t.skip('Deno finds no adapter');
    assert.match(text, /on .*(llvmpipe|NVIDIA|AMD|Intel)/i);
    console.log(/^on .*$/m.exec(text)[0]);
});

test('Deno, webgpu: a GPU that is lost in mid-generation', {skip}, () => run('deno_loss.mjs'));
