/* The conversation: sends, streams, stops, and says how fast it was. */
import type {GenerationInfo, Message} from 'dibit';

import {element, make, show} from './dom.js';
import {currentModel, onModel} from './model.js';
import {clearProblem, showProblem} from './problems.js';

const endings: Record<string, string> = {
    length: 'It stopped at its longest answer.',
    context: 'The conversation is as long as the model can follow: begin a new one.',
    cancelled: 'Stopped.',
};

let messages: Message[] = [], abort: AbortController | undefined;

function addTurn(role: string, text: string): HTMLElement {
    const log = element('log'), turn = make('div', text, `turn ${role}`);
    log.append(turn);
    log.scrollTop = log.scrollHeight;
    return turn;
}

/* Follows the text unless the reader has scrolled up. */
function append(turn: Text, piece: string): void {
    const log = element('log'), follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    turn.appendData(piece);
    if (follows) log.scrollTop = log.scrollHeight;
}

function figures(info: GenerationInfo): string {
    const parts = [`first token after ${(info.firstTokenMs / 1000).toFixed(2)} s`];
    if (info.tokens.length > 1) parts.push(`${info.tokensPerSecond.toFixed(1)} tokens/s`);
    parts.push(`${info.tokens.length} tokens`, `${info.promptTokens + info.cachedTokens} before`);
    return parts.join(' · ');
}

function busy(yes: boolean): void {
    show(!yes, element('send'));
    show(yes, element('stop'));
    element<HTMLButtonElement>('forget').disabled = element<HTMLButtonElement>('other').disabled = yes;
}

async function answer(turn: HTMLElement): Promise<void> {
    const text = document.createTextNode('');
    turn.append(text);
    turn.classList.add('writing');
    abort = new AbortController();
    const {signal} = abort;
    const generation = currentModel()!.lm.chat(messages, {signal});
    try {
        for await (const piece of generation) append(text, piece);
    } catch (error) {
        if (!signal.aborted) throw error;
    } finally {
        turn.classList.remove('writing');
        abort = undefined;
    }
    const {info} = generation;
    if (info) element('figures').textContent = figures(info);
    const note = signal.aborted ? endings.cancelled : [info?.fallback, endings[info?.finish ?? '']].filter(s => s).join(' ');
    if (note) turn.append(make('small', note, 'note'));
    messages.push({role: 'assistant', content: text.data});
}

async function send(event: Event): Promise<void> {
    event.preventDefault();
    const input = element<HTMLTextAreaElement>('message'), content = input.value.trim();
    if (!content || abort || !currentModel()) return;
    clearProblem();
    input.value = '';
    resize();
    messages.push({role: 'user', content});
    addTurn('user', content);
    const turn = addTurn('assistant', '');
    busy(true);
    try {
        await answer(turn);
    } catch (error) {
        messages.pop();
        if (!turn.textContent) turn.remove();
        showProblem(error);
    } finally {
        busy(false);
        input.focus();
    }
}

function forget(): void {
    messages = [];
    element('log').replaceChildren();
    element('figures').textContent = '';
    clearProblem();
}

function resize(): void {
    const input = element<HTMLTextAreaElement>('message');
    input.style.height = 'auto';
    input.style.height = `${input.scrollHeight + 2}px`;
}

export function setUpChat(): void {
    const input = element<HTMLTextAreaElement>('message'), composer = element<HTMLFormElement>('composer');
    composer.addEventListener('submit', event => void send(event));
    input.addEventListener('input', resize);
    input.addEventListener('keydown', event => {
        if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        composer.requestSubmit();
    });
    document.addEventListener('keydown', event => {
        if (event.key === 'Escape') abort?.abort();
    });
    element('stop').addEventListener('click', () => abort?.abort());
    element('forget').addEventListener('click', forget);
    onModel(loaded => {
        abort?.abort();
        forget();
        show(loaded !== undefined, composer);
        if (loaded) input.focus();
    });
}
