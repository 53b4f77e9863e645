/* Horizontal bars, drawn as SVG. */

export interface Bar {
    label: string;
    values: {value: number; text: string; className: 'ours' | 'peer'}[];
}

const svg = 'http://www.w3.org/2000/svg';

function add(parent: Element, name: string, attributes: Record<string, string | number>, text = ''): void {
    const e = document.createElementNS(svg, name);
    for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, String(value));
    e.textContent = text;
    parent.append(e);
}

/** Longer is more; each group of bars has its own scale, since their units differ. */
export function drawBars(into: HTMLElement, bars: Bar[], title: string): void {
    const width = 720, left = 230, room = width - left - 130, height = 16, gap = 10;
    const root = document.createElementNS(svg, 'svg');
    let y = 4;
    for (const bar of bars) {
        const most = Math.max(...bar.values.map(v => v.value));
        add(root, 'text', {x: 0, y: y + 12}, bar.label);
        for (const {value, text, className} of bar.values) {
            const length = Math.max(2, (value / most) * room);
            add(root, 'rect', {x: left, y, width: length, height: height - 2, rx: 3, class: className});
            add(root, 'text', {x: left + length + 6, y: y + 12}, text);
            y += height;
        }
        y += gap;
    }
    root.setAttribute('viewBox', `0 0 ${width} ${y}`);
    root.setAttribute('role', 'img');
    root.setAttribute('aria-label', title);
    into.replaceChildren(root);
}
