// The page in Chromium, driven as a user does.
import assert from 'node:assert/strict';
import {readFileSync} from 'node:fs';
import {join} from 'node:path';
import test, {after, before} from 'node:test';
import {pathToFileURL} from 'node:url';

import {chromiumPath, launchChromium} from './browsers.mjs';
import {makeBrokenModel, makePeer, makeTinyModel, servePage, User} from './page.mjs';
import {built, cases} from './support.mjs';

const skip = !chromiumPath && 'there is no Chromium';
let browser, server, expected;

const QUESTIONS = ['Hello', 'And then?'];

/* What the tiny model answers in this process, turn by turn. */
async function answersHere(questions) {
    const {load} = await import(pathToFileURL(join(built, 'node.js')));
    const lm = await load(makeTinyModel(), {device: 'wasm'}), messages = [];
    for (const content of questions) {
        messages.push({role: 'user', content});
        messages.push({role: 'assistant', content: await lm.chat(messages).text()});
    }
    await lm.dispose();
    return messages.filter(m => m.role === 'assistant').map(m => m.content);
}

before(async () => {
    if (skip) return;
    server = await servePage({places: {
        '/models/half/': join(cases, 'llama.q2'), '/models/broken/': makeBrokenModel(), '/peer/': join(cases, 'nothing'),
    }});
    expected = await answersHere(QUESTIONS);
    browser = await launchChromium();
});

after(async () => {
    await browser?.close();
    await server?.close();
});

const TINY = '?model=models/tiny/&device=wasm';

/* Counts how often an answer's text grows. */
function countPieces(page) {
    return page.evaluate(() => {
        window.pieces = 0;
        new MutationObserver(changes => (window.pieces += changes.length))
            .observe(document.querySelector('#log'), {characterData: true, subtree: true});
    });
}

test('a model is loaded, answers piece by piece, and goes on with the conversation', {skip}, async () => {
    const user = await User.open(browser, server.url, {query: TINY}), {page} = user;
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    await user.load();
    await countPieces(page);
    await user.send(QUESTIONS[0]);
    const first = await user.answer();
    assert.equal(first.text, expected[0]);
    assert.match(first.notes.at(-1), /^first token after \d+\.\d\d s · \d+\.\d tokens\/s · \d+ tokens written · \d+ read$/);
    assert.ok(await page.evaluate(() => window.pieces) > 3);
    await user.send(QUESTIONS[1]);
    const second = await user.answer(1);
    assert.equal(second.text, expected[1]);
    assert.match(second.notes.at(-1), / \d+ read · [1-9]\d* remembered$/);
    assert.match(second.notes[0], /as long as the model can follow/);
    await user.send('More');
    assert.match(await user.problem(), /longer than the model can follow/);
    assert.equal(await page.inputValue('#message'), 'More');
    await page.click('#forget');
    await user.send(QUESTIONS[0]);
    assert.equal((await user.answer()).text, expected[0]);
    await user.close();
});

/* In the worker: its GPU says that it is one, and can be reached. */
function openRealGpu() {
    const request = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (...options) {
        return globalThis.gpuDevice = await request.apply(this, options);
    };
    for (const name of ['vendor', 'architecture', 'device', 'description']) {
        Object.defineProperty(GPUAdapterInfo.prototype, name, {get: () => 'real'});
    }
    Object.defineProperty(GPUAdapterInfo.prototype, 'isFallbackAdapter', {get: () => false});
}

test('on the GPU an answer can be stopped; one during which the GPU is lost ends on the CPU', {skip}, async () => {
    const user = await User.open(browser, server.url, {query: '?model=models/tiny/', prelude: openRealGpu}), {page} = user;
    await user.load();
    assert.match(await page.textContent('#device'), /^GPU · \d/);
    await page.click('#device');
    await page.waitForSelector('#explain[open]');
    assert.match(await page.innerText('#explain'), /webgpu[^]*MatMulNBits/i);
    await page.keyboard.press('Escape');
    await user.send(QUESTIONS[0]);
    await user.begins();
    await page.keyboard.press('Escape');
    const stopped = await user.answer();
    assert.deepEqual(stopped.notes, ['Stopped.']);
    assert.ok(expected[0].startsWith(stopped.text) && stopped.text.length < expected[0].length, stopped.text);
    await page.click('#forget');
    await user.send(QUESTIONS[0]);
    await user.begins();
    await page.workers()[0].evaluate(() => gpuDevice.destroy());
    const {text, notes} = await user.answer();
    assert.equal(text, expected[0]);
    assert.match(notes[0], /the CPU took over/);
    assert.match(await page.textContent('#device'), /^CPU/);
    await user.close();
});

test('a GPU that is lost, or has no memory', {skip}, async () => {
    const query = '?model=models/tiny/&device=webgpu';
    const lost = await User.open(browser, server.url, {query, prelude: () => {
        const request = GPUAdapter.prototype.requestDevice;
        GPUAdapter.prototype.requestDevice = async function (...options) {
            const device = await request.apply(this, options);
            device.destroy();
            return device;
        };
    }});
    await lost.page.click('#load');
    assert.match(await lost.problem(), /The GPU went away[^]*choose the CPU/);
    await lost.page.selectOption('#choose-device', 'wasm');
    await lost.load();
    await lost.close();
    const full = await User.open(browser, server.url, {query, prelude: () => {
        const create = GPUDevice.prototype.createBuffer;
        GPUDevice.prototype.createBuffer = function (...options) {
            const error = new GPUOutOfMemoryError('there is no more');
            this.dispatchEvent(new GPUUncapturedErrorEvent('uncapturederror', {error, cancelable: true}));
            return create.apply(this, options);
        };
    }});
    await full.page.click('#load');
    assert.match(await full.problem(), /not enough memory[^]*smaller model/);
    await full.close();
});

test('models that cannot be loaded', {skip}, async () => {
    const user = await User.open(browser, server.url, {query: '?model=models/nothing/&device=wasm'}), {page} = user;
    const fails = async words => {
        await page.click('#load');
        assert.match(await user.problem(), words);
        await page.click('#problem button');
    };
    await fails(/A file of the model is missing[^]*no model\.onnx.* is in http.*\/models\/nothing\//);
    await page.fill('#url', 'no.such.invalid/OWNER/NAME');
    await fails(/could not be fetched[^]*https:\/\/no\.such\.invalid\/OWNER\/NAME\/.*not reachable/);
    await page.fill('#url', 'https://[');
    await fails(/'https:\/\/\[' is no address/);
    await page.fill('#url', '');
    await fails(/Write the address/);
    await page.fill('#url', new URL('models/half/', server.url).href);
    await fails(/A file of the model is missing[^]*tokenizer\.json/);
    await page.fill('#url', new URL('models/broken/', server.url).href);
    await fails(/not a model that can be read/);
    await page.fill('#url', 'http://127.0.0.1:9/');
    await fails(/could not be fetched[^]*not reachable/);
    await page.fill('#url', new URL('models/tiny/', server.url).href);
    await user.load();
    await user.close();
});

test('a browser without WebGPU', {skip}, async () => {
    const user = await User.open(browser, server.url, {
        query: '?model=models/tiny/&device=webgpu', prelude: () => delete WorkerNavigator.prototype.gpu,
        init: () => delete Navigator.prototype.gpu,
    }), {page} = user;
    assert.match(await page.innerText('#device-hint'), /no WebGPU/);
    await page.click('#load');
    assert.match(await user.problem(), /no WebGPU[^]*Choose the CPU/);
    await page.selectOption('#choose-device', 'auto');
    await user.load();
    assert.match(await page.innerText('#running'), /no WebGPU, so the CPU computes/);
    await user.close();
});

test('files from the disk, chosen and dropped', {skip}, async () => {
    const user = await User.open(browser, server.url), {page} = user;
    await page.check('input[value=files]');
    await page.selectOption('#choose-device', 'wasm');
    await page.click('#load');
    assert.match(await user.problem(), /Choose the folder/);
    await page.setInputFiles('#folder', makeTinyModel());
    assert.match(await page.innerText('#chosen'), /^tiny: \d+ files/);
    await user.load();
    assert.match(await page.innerText('#running'), /^tiny on /);
    await page.click('#other');
    const names = ['model.onnx', 'model.onnx.data', 'tokenizer.json', 'tokenizer_config.json', 'config.json', 'chat_template.jinja'];
    const transfer = await page.evaluateHandle(async ([names, base]) => {
        const transfer = new DataTransfer();
        for (const name of names) transfer.items.add(new File([await (await fetch(base + name)).blob()], name));
        return transfer;
    }, [names, new URL('models/tiny/', server.url).href]);
    await page.dispatchEvent('#picker', 'drop', {dataTransfer: transfer});
    await user.sees('#composer');
    await user.send(QUESTIONS[0]);
    assert.equal((await user.answer()).text, expected[0]);
    await user.close();
});

test('what was fetched is kept, and loads without a network', {skip}, async () => {
    const own = await servePage(), user = await User.open(browser, own.url, {query: TINY}), {page} = user;
    await user.load();
    await page.evaluate(() => navigator.serviceWorker.ready);
    await page.reload();
    await user.isReady();
    assert.match(await page.innerText('#kept'), /MB of models are kept/);
    await user.load();
    await own.close();
    await page.context().setOffline(true);
    await page.reload();
    await user.isReady();
    await user.load();
    await user.send(QUESTIONS[0]);
    assert.equal((await user.answer()).text, expected[0]);
    await page.click('#other');
    await page.check('input[value=shipped]');
    await page.click('#load');
    assert.match(await user.problem(), /This machine is offline/);
    await page.click('#kept-remove');
    await page.locator('#kept').waitFor({state: 'hidden'});
    await user.close();
});

test('a page that is not isolated; diagnostics, and the report as a file', {skip}, async () => {
    const plain = await servePage({isolated: false}), user = await User.open(browser, plain.url, {query: TINY}), {page} = user;
    assert.equal(await page.evaluate(() => crossOriginIsolated), false);
    await user.load();
    await user.send(QUESTIONS[0]);
    assert.equal((await user.answer()).text, expected[0]);
    await page.press('#tab-chat', 'ArrowRight');
    await page.selectOption('#verify-device', 'wasm');
    await page.click('#verify');
    await page.getByText(/^Yes: \d+ kernels passed, 0 failed/).waitFor();
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#report-save')]);
    const report = readFileSync(await download.path(), 'utf8');
    assert.equal(download.suggestedFilename(), 'dibit-report.txt');
    for (const part of [/^browser: .*Chrome/m, /^tiny \(http.*: llama, context 128$/m, /^\d+ passed, 0 failed, \d+ skipped$/m]) {
        assert.match(report, part);
    }
    await user.close();
    await plain.close();
});

test('the shipped model answers as it does natively, and stops when it is told to', {skip}, async () => {
    const user = await User.open(browser, server.url), {page} = user;
    await user.load();
    await page.getByRole('button', {name: 'Why is the sky blue?'}).click();
    await page.waitForFunction(() => document.querySelector('.turn.assistant')?.textContent.length > 45);
    await page.click('#stop');
    await page.locator('#send').waitFor({timeout: 15000}); /* the worker has stopped too: the whole answer takes far longer */
    const {text, notes} = await user.answer();
    assert.ok(text.startsWith('The sky blue is a fundamental concept'), text);
    assert.deepEqual(notes, ['Stopped.']);
    await user.close();
});

test('on a phone nothing is wider than the screen; the keyboard reaches all, and all has a name', {skip}, async () => {
    const user = await User.open(browser, server.url, {query: TINY, viewport: {width: 340, height: 640}}), {page} = user;
    const check = async () => {
        assert.equal(await page.evaluate(() => document.scrollingElement.scrollWidth), 340);
        const nameless = await page.$$eval('button, input, select, textarea, [tabindex="0"]', all => all.filter(e =>
            e.checkVisibility() && !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).map(e => e.outerHTML));
        assert.deepEqual(nameless, []);
    };
    await check();
    await page.focus('#load');
    await page.keyboard.press('Enter');
    await user.sees('#composer');
    assert.equal(await page.evaluate(() => document.activeElement.id), 'message');
    await page.keyboard.type(QUESTIONS[0]);
    await page.keyboard.press('Enter');
    assert.equal((await user.answer()).text, expected[0]);
    await check();
    await page.focus('#tab-chat');
    for (const name of ['diagnostics', 'benchmark']) {
        await page.keyboard.press('ArrowRight');
        await page.waitForFunction(view => !document.getElementById(view).hidden, `view-${name}`);
        assert.equal(await page.evaluate(() => document.activeElement.id), `tab-${name}`);
        await check();
    }
    await page.focus('#device');
    await page.keyboard.press('Enter');
    await page.locator('#explain[open]').waitFor();
    await check();
    assert.equal(await page.evaluate(() => document.querySelector('#explain').scrollTop), 0); /* it is read from its top */
    await user.close();
});

test('a model under the microscope: its nodes on the GPU and the CPU, one element bit by bit', {skip}, async () => {
    const user = await User.open(browser, server.url, {query: TINY}), {page} = user;
    await page.click('#tab-diagnostics');
    assert.equal(await page.isDisabled('#diff'), true);
    await page.click('#tab-chat');
    await user.load();
    await page.click('#tab-diagnostics');
    await page.click('#diff');
    await page.getByText(/^They agree: every node is within its bound\. \d+ of \d+ nodes on .*swiftshader/).waitFor();
    assert.ok(await page.locator('#diff-table tbody tr').count() > 40);
    assert.match(await page.inputValue('#trace-node'), /MatMul_Q2$/);
    await page.fill('#trace-index', '0; 5');
    await page.click('#trace');
    await page.getByText(/told by its row and column/).waitFor();
    await page.fill('#trace-index', '0, 5');
    await page.selectOption('#trace-device', 'wasm');
    await page.click('#trace');
    await page.getByText(/^the CPU's output is as defined|^The output is as defined/).waitFor();
    assert.equal(await page.locator('#trace-table tbody tr').count(), 64);
    const report = await page.textContent('#report');
    for (const part of [/^# Diff, tiny\n\ndibit .* diff on /m, /all within their bounds/, /^# Trace, tiny, .*\[0,5\]\n\ndibit .* trace on cpu/m]) {
        assert.match(report, part);
    }
    await user.close();
});

/* In matvecs every zero point of a byte is read as its first. */
function breakZeroPoints() {
    const create = GPUDevice.prototype.createShaderModule;
    GPUDevice.prototype.createShaderModule = function ({label, code}) {
        const wrong = code.replace('let shift = byte % 4u * 8u + g * BITS % 8u;', 'let shift = byte % 4u * 8u;');
        return create.call(this, {label, code: label.startsWith('nbits_matvec') ? wrong : code});
    };
}

test('a mistake in a shader: verify names the kernel, diff the node, trace the bit, and the report has them', {skip}, async () => {
    const user = await User.open(browser, server.url, {query: TINY, prelude: breakZeroPoints}), {page} = user;
    await user.load();
    await page.click('#tab-diagnostics');
    await page.click('#verify');
    await page.getByText(/^Not everywhere: \d+ kernels passed, [1-9]\d* failed/).waitFor();
    const [kernel, , , verdict] = await page.locator('#verify-table tr:has(.failed) >> nth=0').locator('td').allTextContents();
    assert.match(kernel, /matvec_float_m\d_rows4_lanes1/);
    assert.match(verdict, /^failed: .*2 bits.*zero point/);
    await page.check('#diff-unproved');
    await page.click('#diff');
    await page.getByText(/^They differ, first at .*\/qkv_proj\/MatMul_Q2 \(MatMulNBits\)\. /).waitFor();
    const node = await page.inputValue('#trace-node'), index = (await page.inputValue('#trace-index')).replaceAll(' ', '');
    const [where, , alone, inChain] = await page.locator('#diff-table tr:has(.failed) >> nth=0').locator('td').allTextContents();
    assert.equal(where, `${node} (prompt)`);
    for (const share of [alone, inChain]) assert.ok(parseFloat(share) > 100, `${alone}, ${inChain}`);
    await page.click('#trace');
    await page.getByText(/^k \d+: the zero point's first bit in its byte is 0, expected [246]/).waitFor();
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#report-save')]);
    const report = readFileSync(await download.path(), 'utf8');
    for (const part of [`FAILED ${kernel}: `, '# Diff, tiny, with kernels that failed their proof\n', 'FIRST prompt: ', `'${node}' `,
                        `# Trace, tiny, ${node} [${index}]`, 'FIRST WRONG BIT: k ']) {
        assert.ok(report.includes(part), `${part} is not in\n${report}`);
    }
    await user.close();
});

test('the benchmark, alone and beside another engine', {skip}, async () => {
    const own = await servePage({places: {'/peer/': makePeer()}}), user = await User.open(browser, own.url, {query: TINY}), {page} = user;
    const rows = () => page.$$eval('#bench-table tbody tr', all => all.map(row => [...row.cells].map(cell => cell.textContent)));
    await page.click('#tab-benchmark');
    await page.selectOption('#bench-device', 'wasm');
    await page.selectOption('#bench-size', '1024');
    await page.click('#bench');
    await page.getByText(/^Medians/).waitFor();
    const alone = await rows();
    assert.deepEqual(alone.map(([name]) => name), ['2 bits, 1 row', '4 bits, 1 row', '2 bits, 16 rows', '4 bits, 16 rows']);
    for (const [, ours, peer, ratio] of alone) {
        assert.match(ours, /^[\d,]+ µs a layer$/);
        assert.deepEqual([peer, ratio], ['', '']);
    }
    await page.click('#tab-chat');
    await user.load();
    await page.click('#tab-benchmark');
    await page.check('#bench-peer');
    await page.getByText(/Run fetches onnxruntime-web 1\.\d+\.\d+ from beside this page: [\d.]+ MB/).waitFor();
    await page.click('#bench');
    await page.getByText(/^Medians.*The model reads/).waitFor();
    const both = await rows();
    assert.equal(both.length, 6);
    for (const [, , peer, ratio] of both.slice(0, 4)) {
        assert.match(peer, /^[\d,]+ µs a layer$/);
        assert.match(ratio, /^[\d.]+×$/);
    }
    for (const [, ours, peer, ratio] of both.slice(4)) {
        assert.match(ours, /^[\d.]+ tokens\/s$/);
        assert.deepEqual([peer, ratio], ['cannot', '']);
    }
    assert.equal(await page.locator('#bench-chart rect').count(), 10);
    await page.selectOption('#bench-device', 'webgpu');
    await page.click('#bench');
    await page.getByText(/^Medians.*The model reads/).waitFor();
    const onGpu = await rows();
    assert.equal(onGpu.length, 6);
    for (const [i, [, ours, peer, ratio]] of onGpu.entries()) {
        for (const took of [ours, peer]) assert.match(took, i < 4 ? /^[\d,]+ µs a layer$/ : /^[\d.]+ tokens\/s$/);
        assert.match(ratio, /^[\d.]+×$/);
    }
    assert.equal(await page.locator('#bench-chart rect').count(), 12);
    await user.close();
    await own.close();
    const far = await User.open(browser, server.url);
    await far.page.click('#tab-benchmark');
    await far.page.check('#bench-peer');
    await far.page.getByText(/from cdn\.jsdelivr\.net: [\d.]+ MB/).waitFor();
    await far.close();
});
