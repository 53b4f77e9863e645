// What tests of the package share: where things are, modules of web/src by themselves, and tensors from .pb files.
import {copyFileSync, mkdirSync} from 'node:fs';
import {createRequire} from 'node:module';
import {basename, dirname, join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';

import {halfValue, readTensor as readProto} from './tensors.mjs';

export const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
export const built = join(root, 'build/web/dist');
export const model = join(root, 'models/smollm2-135m-instruct-2bit');
export const cases = join(root, 'tests/data/cases');

/** Where a test file writes to: not where one that runs beside it does. */
export const scratch = join(root, 'build/web/tests', basename(process.argv[1] ?? '', '.test.mjs') || 'none');

/** A folder that load() takes: a small model of the cases and a small tokenizer, which knows nothing of each other. */
export function smallFolder(name) {
    const folder = join(scratch, 'folders', name);
    mkdirSync(folder, {recursive: true});
    for (const file of ['model.onnx', 'model.onnx.data']) copyFileSync(join(cases, name, file), join(folder, file));
    copyFileSync(join(root, 'tests/data/tokenizers/gpt2.json'), join(folder, 'tokenizer.json'));
    return folder;
}

/** A module of web/src that the package does not export. */
export async function source(name) {
    const require = createRequire(join(root, 'build/web/package.json'));
    const outfile = join(scratch, `${name}.mjs`);
    await require('esbuild').build({
        entryPoints: [join(root, 'web/src', `${name}.ts`)], outfile, bundle: true, format: 'esm', target: 'es2022',
        external: ['@huggingface/*'], logLevel: 'warning',
    });
    return import(pathToFileURL(outfile).href);
}

/** A TensorProto as onnxruntime names its type. */
export function readTensor(path) {
    const tensor = readProto(path);
    return {...tensor, type: tensor.type === 'float' ? 'float32' : tensor.type};
}

export function floats(tensor) {
    const {data} = tensor;
    if (tensor.type !== 'float16' || !(data instanceof Uint16Array)) return Array.from(data, Number);
    return Array.from(data, halfValue);
}

/** The largest difference, over the largest value. */
export function distance(got, want) {
    const a = floats(got), b = floats(want);
    if (a.length !== b.length) return Infinity;
    let worst = 0, size = 1e-6;
    for (let i = 0; i < a.length; i++) {
        if (!(Math.abs(a[i] - b[i]) <= worst)) worst = Math.abs(a[i] - b[i]);
        size = Math.max(size, Math.abs(b[i]));
    }
    return worst / size;
}
