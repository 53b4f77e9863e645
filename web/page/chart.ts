/* Horizontal bars, drawn as SVG. */

export interface Bar {
    label: string;
    /** Bars of one group have one scale. */
    group: string;
    values: {value: number; text: string; className: 'ours' | 'peer'}[];
}

const svg = 'http://www.w3.org/2000/svg';

function add(parent: Element, name: string, attributes: Record<string, string | number>, text = ''): void {
    const e = document.createElementNS(svg, name);
    for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, String(value));
    e.textContent = text;
    parent.append(e);
}

/** Longer is more. */
export function drawBars(into: HTMLElement, bars: Bar[], title: string): void {
    const width = Math.max(320, into.clientWidth), isNarrow = width < 560, height = 20, gap = 14;
    const left = isNarrow ? 0 : 220, room = width - left - 130, root = document.createElementNS(svg, 'svg');
    let y = 4;
    for (const bar of bars) {
        const most = Math.max(...bars.filter(b => b.group === bar.group).flatMap(b => b.values.map(v => v.value)));
        add(root, 'text', {x: 0, y: y + 14, class: isNarrow ? 'soft' : ''}, bar.label);
        if (isNarrow) y += height;
        for (const {value, text, className} of bar.values) {
            const length = Math.max(3, (value / most) * room);
            add(root, 'rect', {x: left, y, width: length, height: height - 4, rx: 4, class: className});
            add(root, 'text', {x: left + length + 8, y: y + 13}, text);
            y += height;
        }
        y += gap;
    }
    root.setAttribute('viewBox', `0 0 ${width} ${y}`);
    root.setAttribute('role', 'img');
    root.setAttribute('aria-label', title);
    into.replaceChildren(root);
}
