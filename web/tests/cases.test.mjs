// The reference models of tests/data/cases on the CPU in wasm, all of them, and a choice of them on a GPU through
// the npm package webgpu: one for each shader would take a software adapter minutes to compile.
import assert from 'node:assert/strict';
import {readdirSync} from 'node:fs';
import {join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {checkCase} from './cases.mjs';
import {Engine, root} from './web.mjs';

const folder = join(root, 'tests/data/cases');
const ON_GPU = ['causal_conv_step', 'layer_norm', 'gather_quantized_2bit_zp', 'nbits_2bit_block16_zp',
    'nbits_2bit_block32_zp_acc4', 'dequantize_blocks'];

let cpu, gpu, noGpu = '';

before(async () => {
    cpu = await Engine.create({device: 'wasm'});
    try {
        gpu = await Engine.create({device: 'webgpu'});
        console.log(`on ${gpu.deviceName}`);
    } catch (e) {
        noGpu = e.message;
    }
});
after(() => {
    cpu.dispose();
    gpu?.dispose();
});

describe('wasm', () => {
    for (const name of readdirSync(folder).filter(name => !name.includes('README'))) {
        test(`wasm ${name}`, async () => assert.deepEqual(await checkCase(join(folder, name), cpu, cpu), []));
    }
});

describe('webgpu', () => {
    for (const name of ON_GPU) {
        test(`webgpu ${name}`, async t => {
            if (!gpu) return t.skip(noGpu);
            assert.deepEqual(await checkCase(join(folder, name), gpu, cpu), []);
        });
    }
});
