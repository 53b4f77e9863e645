// The page in Chromium, driven as a user does.
import assert from 'node:assert/strict';
import {join} from 'node:path';
import test, {after, before} from 'node:test';
import {pathToFileURL} from 'node:url';

import {launch, makeTinyModel, servePage, skip, User} from './page.mjs';
import {built} from './support.mjs';

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
    server = await servePage();
    expected = await answersHere(QUESTIONS);
    browser = await launch();
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
    assert.match(first.notes.at(-1), /first token after \d+\.\d\d s · \d+\.\d tokens\/s · \d+ tokens · (\d+) of the prompt's \1 read anew/);
    assert.ok(await page.evaluate(() => window.pieces) > 3);
    await user.send(QUESTIONS[1]);
    const second = await user.answer(1);
    assert.equal(second.text, expected[1]);
    const [, anew, all] = /(\d+) of the prompt's (\d+) read anew/.exec(second.notes.at(-1));
    assert.ok(Number(anew) < Number(all));
    assert.match(second.notes[0], /as long as the model can follow/);
    await user.send('More');
    assert.match(await user.problem(), /longer than the model can follow/);
    assert.equal(await page.inputValue('#message'), 'More');
    await page.click('#forget');
    await user.send(QUESTIONS[0]);
    assert.equal((await user.answer()).text, expected[0]);
    await user.close();
});
