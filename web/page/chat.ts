/* The conversation: sends, streams, stops, and says how fast it was. */
import type {GenerationInfo, Message} from 'dibit';

import {element, make, say, show} from './dom.js';
import {currentModel, onModel, showDevice} from './model.js';
import {clearProblem, showProblem} from './problems.js';

const endings: Record<string, string> = {
    length: 'This is as long as an answer may get.',
    context: 'The conversation is as long as the model can follow: begin a new one.',
};

let messages: Message[] = [], abort: AbortController | undefined;

const log = () => element('log');
const input = () => element<HTMLTextAreaElement>('message');

function addTurn(role: 'user' | 'assistant', text: string): HTMLElement {
    const turn = make('div', '', `turn ${role}`);
    turn.append(make('span', role === 'user' ? 'You: ' : 'Model: ', 'unseen'), text);
    show(true, log());
    show(false, element('ideas'));
    log().append(turn);
    log().scrollTop = log().scrollHeight;
    return turn;
}

/* Follows what is added unless the reader has scrolled up. */
function follow(add: () => void): void {
    const box = log(), follows = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    add();
    if (follows) box.scrollTop = box.scrollHeight;
}

function figures({firstTokenMs, tokensPerSecond, tokens, promptTokens, cachedTokens}: GenerationInfo): string {
    const parts = [`first token after ${(firstTokenMs / 1000).toFixed(2)} s`];
    if (tokens.length > 1) parts.push(`${tokensPerSecond.toFixed(1)} tokens/s`);
    parts.push(`${tokens.length} tokens written`, `${promptTokens - cachedTokens} read`);
    if (cachedTokens > 0) parts.push(`${cachedTokens} remembered`);
    return parts.map(part => part.replaceAll(' ', '\u00a0')).join(' · '); /* lines end between parts */
}

function busy(yes: boolean): void {
    const send = element('send'), stop = element('stop'), from = yes ? send : stop;
    const moves = document.activeElement === from;
    show(!yes, send);
    show(yes, stop);
    if (moves) (yes ? stop : input()).focus();
    element<HTMLButtonElement>('forget').disabled = element<HTMLButtonElement>('other').disabled = yes;
}

async function answer(turn: HTMLElement): Promise<void> {
    const text = document.createTextNode(''), stopped = new AbortController();
    turn.append(text);
    turn.classList.add('writing');
    turn.ariaBusy = 'true'; /* screen readers wait until it is whole */
    abort = stopped;
    const generation = currentModel()!.lm.chat(messages, {signal: stopped.signal});
    try {
        for await (const piece of generation) follow(() => text.appendData(piece));
    } catch (error) {
        if (!stopped.signal.aborted) throw error;
    } finally {
        turn.classList.remove('writing');
        turn.ariaBusy = 'false';
        abort = undefined;
    }
    messages.push({role: 'assistant', content: text.data});
    const {info} = generation;
    const notes = stopped.signal.aborted ? ['Stopped.'] : [info?.fallback, endings[info?.finish ?? ''], info && figures(info)];
    follow(() => turn.append(...notes.filter(note => note).map(note => make('small', note, 'note'))));
    say('status', stopped.signal.aborted ? 'Stopped.' : 'Answered.');
}

async function send(event: Event): Promise<void> {
    event.preventDefault();
    const content = input().value.trim();
    if (!content || abort || !currentModel()) return;
    clearProblem();
    write('');
    messages.push({role: 'user', content});
    const turns = [addTurn('user', content), addTurn('assistant', '')];
    busy(true);
    say('status', 'The model is answering.');
    try {
        await answer(turns[1]);
        await showDevice();
    } catch (error) {
        messages.pop();
        for (const turn of turns) turn.remove();
        write(content); /* nothing of what was written is lost */
        showProblem(error);
    } finally {
        busy(false);
    }
}

function forget(): void {
    messages = [];
    log().replaceChildren();
    show(false, log());
    show(currentModel() !== undefined, element('ideas'));
    clearProblem();
}

function write(text: string): void {
    input().value = text;
    resize();
}

function resize(): void {
    input().style.height = 'auto';
    input().style.height = `${input().scrollHeight + 2}px`;
}

export function setUpChat(): void {
    const composer = element<HTMLFormElement>('composer');
    composer.addEventListener('submit', event => void send(event));
    input().addEventListener('input', resize);
    input().addEventListener('keydown', event => {
        if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        composer.requestSubmit();
    });
    element('ideas').addEventListener('click', ({target}) => {
        if (!(target instanceof HTMLButtonElement)) return;
        write(target.textContent!);
        composer.requestSubmit();
    });
    document.addEventListener('keydown', event => {
        if (event.key === 'Escape') abort?.abort();
    });
    element('stop').addEventListener('click', () => abort?.abort());
    element('forget').addEventListener('click', () => {
        forget();
        input().focus();
    });
    onModel(loaded => {
        abort?.abort();
        forget();
        show(loaded !== undefined, composer);
        if (loaded) input().focus();
    });
}
