// What the page's tests share: the page served, Chromium, a tiny model that writes nonsense fast, and a user's steps.
import {copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

import {PAGE, serve} from '../serve.mjs';
import {cases, root} from './support.mjs';

const require = createRequire(join(root, 'build/web/package.json'));
const executablePath = process.env.DIBIT_CHROMIUM ?? '/usr/bin/chromium';
export const skip = !existsSync(executablePath) && 'there is no Chromium';

/** The folder of a model of two layers with random weights, with a tokenizer for its 512 tokens. */
export function makeTinyModel() {
    const folder = join(root, 'build/web/tests/tiny');
    const tokenizer = JSON.parse(readFileSync(join(root, 'tests/data/tokenizers/qwen2.json'), 'utf8'));
    const {vocab} = tokenizer.model;
    for (let id = Object.keys(vocab).length; id < 512; id++) vocab[`w${id}`] = id;
    mkdirSync(folder, {recursive: true});
    for (const name of ['model.onnx', 'model.onnx.data']) copyFileSync(join(cases, 'llama.q2', name), join(folder, name));
    writeFileSync(join(folder, 'chat_template.jinja'), '{% for m in messages %}{{ m.content }}\n{% endfor %}');
    const write = (name, value) => writeFileSync(join(folder, name), JSON.stringify(value));
    write('tokenizer.json', tokenizer);
    write('tokenizer_config.json', {});
    write('config.json', {model_type: 'llama', max_position_embeddings: 128, eos_token_id: 372});
    return folder;
}

/** Chromium with WebGPU on SwiftShader. */
export function launch() {
    return require('playwright-core').chromium.launch({executablePath, args: [
        '--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan', '--use-webgpu-adapter=swiftshader',
    ]});
}

/** The page's server, with the tiny model at models/tiny/ and further places. */
export function servePage({places = {}, ...options} = {}) {
    return serve({places: {...PAGE, '/models/tiny/': makeTinyModel(), ...places}, ...options});
}

/** A user of the page, in a browser profile of its own. */
export class User {
    static async open(browser, url, {query = '', ...options} = {}) {
        const context = await browser.newContext(options), page = await context.newPage();
        page.setDefaultTimeout(60000);
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

    /** The nth answer, once it has ended: {text, notes, pieces}. */
    async answer(n = 0) {
        await this.sees(`.turn.assistant >> nth=${n} >> .note`);
        await this.page.locator('#send').waitFor();
        return this.page.locator('.turn.assistant').nth(n).evaluate(turn => ({
            text: [...turn.childNodes].filter(child => child.nodeType === Node.TEXT_NODE).map(child => child.data).join(''),
            notes: [...turn.querySelectorAll('.note')].map(note => note.textContent),
        }));
    }

    async close() {
        await this.context.close();
        if (this.errors.length > 0) throw this.errors[0];
    }
}
