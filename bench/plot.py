"""Line plots as SVG, in colours that can be read on light and on dark pages."""
from html import escape
from math import log2

COLOURS = ("#3b82f6", "#d97706", "#10b981", "#e05252", "#9061f9", "#8a8f98")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 680, 340, 56, 190, 36, 46


def step(most):
    """A round distance between about five lines."""
    size = 10.0 ** (len(str(int(most))) - 2)
    return next(size * f for f in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if most / (size * f) <= 6)


def lines(path, title, series, x_label, y_label, one=False):
    """series: name -> [(x, y)]; x is logarithmic, y begins at 0. one: a line at y = 1."""
    if not series or max(len(p) for p in series.values()) < 2:
        return
    xs = sorted({x for points in series.values() for x, _ in points})
    top = max(y for points in series.values() for _, y in points) * 1.05
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    at_x = lambda x: LEFT + (right - LEFT) * (log2(x / xs[0]) / log2(xs[-1] / xs[0]))
    at_y = lambda y: bottom - (bottom - TOP) * y / top
    grey = "#808891"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="{grey}">',
           f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>']
    for i in range(int(top / step(top)) + 1):
        y = i * step(top)
        out.append(f'<path d="M{LEFT} {at_y(y):.1f}H{right}" stroke="{grey}" stroke-opacity="0.3"/>'
                   f'<text x="{LEFT - 6}" y="{at_y(y) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in xs:
        out.append(f'<text x="{at_x(x):.1f}" y="{bottom + 18}" text-anchor="middle">{x:,}</text>')
    out.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
               f'<text x="14" y="{(TOP + bottom) / 2}" text-anchor="middle" transform="rotate(-90 14 {(TOP + bottom) / 2})">{escape(y_label)}</text>')
    if one and top > 1:
        out.append(f'<path d="M{LEFT} {at_y(1):.1f}H{right}" stroke="{grey}" stroke-dasharray="4 3"/>')
    for i, (name, points) in enumerate(series.items()):
        colour = COLOURS[i % len(COLOURS)]
        path_data = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in sorted(points))
        out.append(f'<path d="M{path_data}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{at_x(x):.1f}" cy="{at_y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points]
        y = TOP + 14 + 18 * i
        out.append(f'<path d="M{right + 14} {y - 4}h18" stroke="{colour}" stroke-width="2"/><text x="{right + 38}" y="{y}">{escape(name)}</text>')
    with open(path, "w") as f:
        f.write("\n".join(out) + "\n</svg>\n")
