// What the page's tests share: the page served, a tiny model that writes nonsense fast, and a user's steps.
import {copyFileSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

import {PAGE, serve} from '../serve.mjs';
import {cases, root, scratch} from './support.mjs';

/** The folder of a model of two layers with random weights, with a tokenizer for its 512 tokens. */
export function makeTinyModel(name = 'tiny') {
    const folder = join(scratch, name);
    const tokenizer = JSON.parse(readFileSync(join(root, 'tests/data/tokenizers/qwen2.json'), 'utf8'));
    const {vocab} = tokenizer.model;
    for (let id = Object.keys(vocab).length; id < 512; id++) vocab[`w${id}`] = id;
    mkdirSync(folder, {recursive: true});
    /* Accuracy level 0 in place of 4: activations stay float, so that devices agree on random weights, too. */
    const onnx = readFileSync(join(cases, 'llama.q2/model.onnx'), 'latin1');
    writeFileSync(join(folder, 'model.onnx'), onnx.replaceAll('accuracy_level\x18\x04', 'accuracy_level\x18\x00'), 'latin1');
    copyFileSync(join(cases, 'llama.q2/model.onnx.data'), join(folder, 'model.onnx.data'));
    writeFileSync(join(folder, 'chat_template.jinja'), '{% for m in messages %}{{ m.content }}\n{% endfor %}');
    const write = (name, value) => writeFileSync(join(folder, name), JSON.stringify(value));
    write('tokenizer.json', tokenizer);
    write('tokenizer_config.json', {});
    write('config.json', {model_type: 'llama', max_position_embeddings: 128, eos_token_id: 482, num_hidden_layers: 2, head_dim: 16});
    return folder;
}

/** The same with a model that is no ONNX file. */
export function makeBrokenModel() {
    const folder = makeTinyModel('broken');
    writeFileSync(join(folder, 'model.onnx'), 'This is a page of some other server.');
    return folder;
}

/** The folder of an onnxruntime-web that only waits. Its CPU build takes no model by its address; the other wants to be
 * told of the GPU, and where a model's past has to stay. */
export function makePeer() {
    const folder = join(scratch, 'peer');
    const create = {
        wasm: `if (typeof model === 'string') throw new Error('no models here');`,
        webgpu: `if (String(options.executionProviders) !== 'webgpu') throw new Error('not on the GPU');
                 if (typeof model === 'string' && options.preferredOutputLocation?.['present.1.value'] !== 'gpu-buffer') {
                     throw new Error('the past leaves the GPU');
                 }`,
    };
    mkdirSync(folder, {recursive: true});
    for (const [name, check] of Object.entries(create)) {
        writeFileSync(join(folder, `ort.${name}.min.mjs`), `
            export const env = {wasm: {}};
            export class Tensor { async getData() {} dispose() {} }
            export const InferenceSession = {
                async create(model, options) {
                    ${check}
                    return {
                        inputNames: [],
                        run: () => new Promise(resolve => setTimeout(() => resolve({y: new Tensor(), logits: new Tensor()}), 20)),
                        async release() {},
                    };
                },
            };`);
    }
    return folder;
}

/** The page's server, with the tiny model at models/tiny/ and further places. */
export function servePage({places = {}, ...options} = {}) {
    return serve({places: {...PAGE, '/models/tiny/': makeTinyModel(), ...places}, ...options});
}

/** A user of the page, in a browser profile of its own. */
export class User {
    /** `init`: a function that the page runs first; `prelude`: one for its workers, the model's and those of jobs, and then
     * there are no service workers. */
    static async open(browser, url, {query = '', init, prelude, ...options} = {}) {
        const context = await browser.newContext({...options, ...(prelude && {serviceWorkers: 'block'})});
        const page = await context.newPage();
        if (init) await page.addInitScript(init);
        if (prelude) {
            await context.route(/\/(worker|job)\.js$/, async route => {
                const response = await route.fetch(), body = `(${prelude})();\n${await response.text()}`;
                await route.fulfill({response, body});
            });
        }
        page.setDefaultTimeout(180000); /* a GPU's shaders, on a CPU that does other things too */
        const user = new User(context, page);
        page.on('pageerror', error => user.errors.push(error));
        await page.goto(`${url}${query}`);
        await user.isReady();
        return user;
    }

    errors = [];

    constructor(context, page) {
        this.context = context;
        this.page = page;
    }

    isReady() {
        return this.page.waitForSelector('html[data-ready]');
    }

    /** Waits for something on the page; a problem that the page shows meanwhile is an error. */
    async sees(selector) {
        const wanted = this.page.locator(selector), problem = this.page.locator('#problem:visible');
        await wanted.or(problem).first().waitFor();
        if (!await wanted.first().isVisible()) throw new Error(`the page says: ${await problem.innerText()}`);
    }

    async load() {
        await this.page.click('#load');
        await this.sees('#composer');
    }

    /** The words of the problem that the page shows. */
    async problem() {
        await this.page.locator('#problem:visible').waitFor();
        return this.page.innerText('#problem');
    }

    async send(text) {
        await this.page.fill('#message', text);
        await this.page.press('#message', 'Enter');
    }

    /** Waits until the nth answer has begun. */
    begins(n = 0) {
        return this.page.waitForFunction(i => {
            const turn = document.querySelectorAll('.turn.assistant')[i];
            return turn && [...turn.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.data.length > 5);
        }, n);
    }

    /** The nth answer, once it has ended: {text, notes}. */
    async answer(n = 0) {
        await this.sees(`.turn.assistant >> nth=${n} >> .note`);
        await this.page.locator('#send').waitFor();
        return this.page.locator('.turn.assistant').nth(n).evaluate(turn => ({
            text: [...turn.childNodes].filter(child => child.nodeType === Node.TEXT_NODE).map(child => child.data).join(''),
            notes: [...turn.querySelectorAll('.note')].map(note => note.textContent.replaceAll('\u00a0', ' ')),
        }));
    }

    async close() {
        await this.context.close();
        if (this.errors.length > 0) throw this.errors[0];
    }
}
