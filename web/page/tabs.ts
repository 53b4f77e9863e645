/* The three views: tabs that follow the address and the arrow keys. */
import {element, show} from './dom.js';

const names = ['chat', 'diagnostics', 'benchmark'];

function select(name: string): void {
    for (const other of names) {
        const tab = element(`tab-${other}`), chosen = other === name;
        tab.setAttribute('aria-selected', String(chosen));
        tab.tabIndex = chosen ? 0 : -1;
        show(chosen, element(`view-${other}`));
    }
}

function fromAddress(): void {
    const name = location.hash.slice(1);
    select(names.includes(name) ? name : 'chat');
}

export function setUpTabs(): void {
    for (const [i, name] of names.entries()) {
        const tab = element(`tab-${name}`);
        tab.addEventListener('click', () => (location.hash = name));
        tab.addEventListener('keydown', event => {
            const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
            if (!step) return;
            const next = names[(i + step + names.length) % names.length];
            location.hash = next;
            element(`tab-${next}`).focus();
        });
    }
    addEventListener('hashchange', fromAddress);
    fromAddress();
}
