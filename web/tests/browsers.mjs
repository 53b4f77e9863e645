// The browsers of tests, and an engine in a page of theirs that tests use as if it were here. Chromium is driven by
// playwright. Debian's Firefox is not: its page asks the site what to do, and sends back what came of it.
import {spawn} from 'node:child_process';
import {existsSync, mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {tmpdir} from 'node:os';
import {join} from 'node:path';

import {EMPTY_PAGE, linkCase, serveSite, writePage} from './site.mjs';
import {root} from './support.mjs';

const find = (name, paths) => process.env[name] ?? paths.find(existsSync);
export const chromiumPath = find('DIBIT_CHROMIUM', ['/usr/bin/chromium', '/usr/bin/chromium-browser']);
export const firefoxPath = find('DIBIT_FIREFOX', ['/usr/bin/firefox-esr', '/usr/bin/firefox']);

/** The environment of programs whose WebGPU takes the machine's drivers: run.mjs may have chosen SwiftShader for Node. */
export function ownDrivers() {
    const env = {...process.env};
    if (env.VK_ICD_FILENAMES?.includes('swiftshader')) delete env.VK_ICD_FILENAMES;
    return env;
}

export function launchChromium() {
    const {chromium} = createRequire(join(root, 'build/web/package.json'))('playwright-core');
    return chromium.launch({executablePath: chromiumPath, args: [
        '--no-sandbox', '--enable-unsafe-webgpu', '--enable-features=Vulkan', '--use-webgpu-adapter=swiftshader',
        '--ignore-gpu-blocklist',
    ]});
}

/** An empty page in Chromium: {page, url, evaluate(f, argument), stop()}; options are serveSite's. */
export async function openChromium(options) {
    const server = await serveSite(options), browser = await launchChromium(), page = await browser.newPage();
    page.on('pageerror', e => console.log(`page: ${e.stack}`));
    await page.goto(`${server.url}blank.html`);
    return {
        page, url: server.url,
        evaluate: (f, argument) => page.evaluate(f, argument),
        async stop() {
            await browser.close();
            await server.stop();
        },
    };
}

/* ---- Firefox ---- */

const FIREFOX_PREFERENCES = {
    'dom.webgpu.enabled': true, 'gfx.webgpu.force-enabled': true, 'gfx.webgpu.ignore-blocklist': true,
    'browser.aboutwelcome.enabled': false, 'browser.shell.checkDefaultBrowser': false,
    'datareporting.policy.dataSubmissionEnabled': false, 'app.update.enabled': false,
};

/* Runs in the page. */
const ASK = `${EMPTY_PAGE}<script type=module>
for (;;) {
    const {id, code, argument} = await (await fetch('/ask')).json();
    let answer;
    try {
        answer = {id, value: await (0, eval)('(' + code + ')')(argument)};
    } catch (e) {
        answer = {id, error: String(e?.stack ? e + '\\n' + e.stack : e)};
    }
    await fetch('/answer', {method: 'POST', body: JSON.stringify(answer)});
}
</script>`;

/** Calls that wait for the page to ask, and then for its answers. */
class Calls {
    waiting = new Map();
    last = 0;
    queue = [];
    asking = null;
    error = null;

    /* Of the site: whether the request was meant for this. */
    answer = (request, response) => {
        if (request.url === '/ask') {
            this.asking = response;
            this.send();
        } else if (request.url === '/answer') {
            let text = '';
            request.setEncoding('utf8').on('data', part => void (text += part)).on('end', () => {
                response.end();
                const {id, value, error} = JSON.parse(text), {resolve, reject} = this.waiting.get(id);
                this.waiting.delete(id);
                if (error) reject(new Error(error));
                else resolve(value);
            });
        } else {
            return false;
        }
        return true;
    };

    send() {
        if (!this.asking || this.queue.length === 0) return;
        this.asking.end(this.queue.shift());
        this.asking = null;
    }

    evaluate(f, argument) {
        return new Promise((resolve, reject) => {
            if (this.error) return void reject(this.error);
            const id = ++this.last;
            this.waiting.set(id, {resolve, reject});
            this.queue.push(JSON.stringify({id, code: String(f), argument}));
            this.send();
        });
    }

    fail(error) {
        this.error = error;
        for (const {reject} of this.waiting.values()) reject(error);
        this.waiting.clear();
    }
}

/** An empty page in headless Firefox: {url, evaluate(f, argument), stop()}. */
export async function openFirefox() {
    const calls = new Calls(), server = await serveSite({answer: calls.answer});
    writePage('ask.html', ASK);
    const profile = mkdtempSync(join(tmpdir(), 'dibit-firefox-'));
    writeFileSync(join(profile, 'user.js'), Object.entries(FIREFOX_PREFERENCES).map(([name, value]) =>
        `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`).join(''));
    const child = spawn(firefoxPath, ['--headless', '--no-remote', '--profile', profile, `${server.url}ask.html`],
                        {stdio: 'ignore', env: {...ownDrivers(), HOME: profile}});
    const exited = new Promise(resolve => child.once('exit', resolve));
    void exited.then(code => calls.fail(new Error(`Firefox ended with ${code}`)));
    return {
        url: server.url,
        evaluate: (f, argument) => calls.evaluate(f, argument),
        async stop() {
            child.kill();
            await exited;
            await server.stop();
            rmSync(profile, {recursive: true, force: true, maxRetries: 10, retryDelay: 100});
        },
    };
}

/* ---- An engine in a page ---- */

/* Runs in the page: what engineInPage calls there. */
async function prepare() {
    globalThis.dibit = await import('/dibit/engine.js');
    globalThis.things = []; /* engines, models, sessions: by number */
    globalThis.keep = thing => things.push(thing) - 1;
    const arrays = {float: Float32Array, float16: Uint16Array, bfloat16: Uint16Array, double: Float64Array,
        int8: Int8Array, uint8: Uint8Array, bool: Uint8Array, int16: Int16Array, uint16: Uint16Array,
        int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array};
    globalThis.unpack = ({type, dims, data}) => ({type, dims, data: new arrays[type](
        Uint8Array.from(atob(data), c => c.charCodeAt(0)).buffer)});
    globalThis.pack = ({type, dims, data}) => {
        const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
        let text = '';
        for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
        return {type, dims, data: btoa(text)};
    };
}

const map = (object, f) => Object.fromEntries(Object.entries(object).map(([name, v]) => [name, f(v)]));
const pack = ({type, dims, data}) => ({
    type, dims, data: Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64'),
});
const unpack = ({type, dims, data}) => {
    const make = {float: Float32Array, double: Float64Array, int64: BigInt64Array, int32: Int32Array, uint8: Uint8Array,
        int8: Int8Array, bool: Uint8Array, float16: Uint16Array, bfloat16: Uint16Array, uint16: Uint16Array}[type];
    return {type, dims, data: new make(Uint8Array.from(Buffer.from(data, 'base64')).buffer)};
};

/** An engine in a page that does what checkCase asks of one. */
export async function engineInPage({evaluate}, options) {
    const dispose = number => evaluate(n => void things[n].dispose(), number);
    await evaluate(prepare);
    const engine = await evaluate(async options => {
        const made = await dibit.Engine.create(options);
        return {number: keep(made), device: made.device, deviceName: made.deviceName, relaxed: made.relaxed};
    }, options);
    return {
        ...engine,
        get droppedKernels() {
            return evaluate(n => things[n].droppedKernels, engine.number);
        },
        async loadModel(path) {
            const model = await evaluate(async ({engine, url}) => {
                const made = await things[engine].loadModel(url);
                return {number: keep(made), inputs: made.inputs, outputs: made.outputs};
            }, {engine: engine.number, url: linkCase(path)});
            return {
                inputs: model.inputs, outputs: model.outputs, dispose: () => dispose(model.number),
                async createSession({noiseSeed, ...options} = {}) {
                    if (noiseSeed) throw new Error('bounds are the CPU\'s');
                    const session = await evaluate(async ({model, options}) =>
                        keep(await things[model].createSession(options)), {model: model.number, options});
                    return {
                        dispose: () => dispose(session),
                        steps: () => evaluate(n => things[n].steps(), session),
                        run: async ({inputs, outputs}) => map(await evaluate(async ({session, inputs, outputs}) => {
                            const all = {};
                            for (const name in inputs) all[name] = unpack(inputs[name]);
                            const got = await things[session].run({inputs: all, outputs});
                            for (const name in got) got[name] = pack(got[name]);
                            return got;
                        }, {session, inputs: map(inputs, pack), outputs}), unpack),
                    };
                },
            };
        },
        dispose: () => dispose(engine.number),
    };
}
