// Under Deno (deno.test.mjs runs it): a GPU that is lost while a text is generated.
import {join} from 'node:path';
import {test} from 'node:test';
import {pathToFileURL} from 'node:url';

import {generateAndLose, judgeLoss} from './loss.mjs';
import {built, smallFolder} from './support.mjs';

const noGpu = !await navigator.gpu?.requestAdapter() && 'Deno finds no adapter', moments = process.env.DIBIT_FULL === '1' ? [1, 3, 7, 20] : [3];

test('a GPU that is lost in mid-generation', {skip: noGpu}, async () => judgeLoss(await generateAndLose({
    scripts: pathToFileURL(join(built, 'index.js')).href, folder: smallFolder('llama.q2'), moments,
}), moments));
