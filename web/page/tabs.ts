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

function next(key: string, i: number): number | undefined {
    switch (key) {
    case 'ArrowRight': return (i + 1) % names.length;
    case 'ArrowLeft': return (i + names.length - 1) % names.length;
    case 'Home': return 0;
    case 'End': return names.length - 1;
    default: return undefined;
    }
}

export function setUpTabs(): void {
    for (const [i, name] of names.entries()) {
        const tab = element(`tab-${name}`);
        tab.addEventListener('click', () => (location.hash = name));
        tab.addEventListener('keydown', event => {
            const to = next(event.key, i);
            if (to === undefined) return;
            event.preventDefault();
            location.hash = names[to];
            element(`tab-${names[to]}`).focus();
        });
    }
    addEventListener('hashchange', fromAddress);
    fromAddress();
}
