// A web site for tests in browsers: files by symbolic links, with Range; and pages that are written to it.
import {mkdirSync, rmSync, symlinkSync, writeFileSync} from 'node:fs';
import {basename, dirname, join} from 'node:path';

import {serve} from '../serve.mjs';
import {built, model, root, scratch} from './support.mjs';

export const transformers = join(root, 'build/transformers/node_modules/@huggingface/transformers');

/* What scripts import by name: the package's, and transformers.js on Dibit. */
const IMPORTS = `<script type=importmap>${JSON.stringify({imports: {
    '@huggingface/jinja': '/packages/@huggingface/jinja/dist/index.js',
    '@huggingface/tokenizers': '/packages/@huggingface/tokenizers/dist/tokenizers.mjs',
    '@huggingface/transformers': '/transformers/dist/transformers.web.js',
    'onnxruntime-web/webgpu': '/dibit/ort.js',
    'onnxruntime-common': '/packages/onnxruntime-common/dist/esm/index.js',
}})}</script>`;

export const EMPTY_PAGE = `<!doctype html><title>dibit</title>${IMPORTS}`;

export const site = join(scratch, 'site');

/** Puts a file or a folder there, and gives its path on the site. */
export function link(target, name) {
    rmSync(join(site, name), {recursive: true, force: true});
    mkdirSync(join(site, name, '..'), {recursive: true});
    symlinkSync(target, join(site, name));
    return `/${name}`;
}

/** The path on the site of a model of a folder of its own. */
export const linkCase = path => `${link(dirname(path), `cases/${basename(dirname(path))}`)}/${basename(path)}`;

export function writePage(name, html) {
    mkdirSync(join(site, name, '..'), {recursive: true});
    rmSync(join(site, name), {force: true});
    writeFileSync(join(site, name), html);
}

/** {url, stop()}: the site, on which `dibit` is the package, `model` the shipped model, and blank.html nothing. With
 * `isolated` its pages are cross-origin isolated. `answer(request, response)` may take requests before it. */
export async function serveSite({isolated = false, answer = () => false} = {}) {
    link(built, 'dibit');
    link(model, 'model');
    link(join(root, 'build/web/node_modules'), 'packages');
    link(transformers, 'transformers');
    writePage('blank.html', EMPTY_PAGE);
    const {url, close} = await serve({places: {'/': site}, isolated, first: answer});
    return {url, stop: close};
}
