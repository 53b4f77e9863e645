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

/** A row of text cells; `className` is the last one's. */
export function addRow(table: HTMLTableElement, cells: string[], className = ''): void {
    const row = table.tBodies[0].insertRow();
    for (const text of cells) row.insertCell().textContent = text;
    if (className) row.cells[row.cells.length - 1].className = className;
    table.hidden = false;
}

export function clearRows(table: HTMLTableElement): void {
    table.tBodies[0].replaceChildren();
    table.hidden = true;
}

/** Runs `work` with the button off and `stop`, which aborts it, shown. */
export async function whileRunning(button: HTMLButtonElement, stop: HTMLButtonElement,
                                   work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const abort = new AbortController(), onStop = () => abort.abort();
    button.disabled = true;
    show(true, stop);
    stop.addEventListener('click', onStop);
    try {
        await work(abort.signal);
    } finally {
        stop.removeEventListener('click', onStop);
        show(false, stop);
        button.disabled = false;
    }
}
