// The shipped model's greedy text in Node: on the CPU, and on a real GPU where there is one.
import {join} from 'node:path';
import {test} from 'node:test';
import {pathToFileURL} from 'node:url';

import {checkGreedy, generate, noJudge} from './greedy.mjs';
import {built, model} from './support.mjs';
import {Engine} from './web.mjs';

const scripts = pathToFileURL(join(built, 'node.js')).href;
const engine = await Engine.create({device: 'auto'}), noGpu = engine.device !== 'webgpu' && (engine.why || 'there is no GPU');
engine.dispose();

const run = options => generate({...options, scripts, folder: model});

/* Else lm.test.mjs asks for its beginning. */
const onlyFull = process.env.DIBIT_FULL !== '1' && 'only with DIBIT_FULL=1';

test('Node, wasm: greedy text', {skip: noJudge || onlyFull}, () => checkGreedy('Node', run, {device: 'wasm'}));
test('Node, webgpu: greedy text', {skip: noJudge || noGpu}, () => checkGreedy('Node', run, {device: 'webgpu'}));
