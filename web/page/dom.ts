/* Small helpers for the page's elements. */

export function element<T extends HTMLElement = HTMLElement>(id: string): T {
    const found = document.getElementById(id);
    if (!found) throw new Error(`the page has no #${id}`);
    return found as T;
}

export function show(visible: boolean, ...elements: HTMLElement[]): void {
    for (const e of elements) e.hidden = !visible;
}

export function make<K extends keyof HTMLElementTagNameMap>(
        tag: K, text = '', className = ''): HTMLElementTagNameMap[K] {
    const e = document.createElement(tag);
    e.textContent = text;
    e.className = className;
    return e;
}

export function megabytes(bytes: number): string {
    return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

/** What says which of several things the user has chosen. */
export function chosen<T extends string>(id: string): T {
    return element<HTMLSelectElement>(id).value as T;
}

/** A row of text cells, with their heads' classes; `className` is the last one's. */
export function addRow(table: HTMLTableElement, cells: string[], className = ''): void {
    const row = table.tBodies[0].insertRow(), heads = table.tHead!.rows[0].cells;
    for (const [i, text] of cells.entries()) {
        const cell = row.insertCell();
        cell.textContent = text;
        cell.className = heads[i].className;
    }
    if (className) row.cells[row.cells.length - 1].classList.add(className);
    table.parentElement!.hidden = false;
}

export function clearRows(table: HTMLTableElement): void {
    table.tBodies[0].replaceChildren();
    table.parentElement!.hidden = true;
}

/** A line that says how something goes. */
export function say(id: string, text: string, failed = false): void {
    const line = element(id);
    line.textContent = text;
    line.classList.toggle('failed', failed);
}

/** Runs `work` with `stop`, which aborts it, in the button's place. */
export async function whileRunning(button: HTMLButtonElement, stop: HTMLButtonElement,
                                   work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const abort = new AbortController(), onStop = () => abort.abort(), hadFocus = document.activeElement === button;
    show(false, button);
    show(true, stop);
    if (hadFocus) stop.focus();
    stop.addEventListener('click', onStop);
    try {
        await work(abort.signal);
    } finally {
        const hasFocus = document.activeElement === stop;
        stop.removeEventListener('click', onStop);
        show(false, stop);
        show(true, button);
        if (hasFocus) button.focus();
    }
}
