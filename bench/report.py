"""Tables and plots of what bench.py measured, for docs/BENCHMARKS.md. usage: report.py JSON MARKDOWN

The page's part between <!-- cpu --> and <!-- /cpu --> is replaced; plots are SVG files beside the page.
"""
import json
import os
import statistics
import sys
from math import log

import plot

median = statistics.median
OURS = "dibit"


def middle(values, digits=3):
    """The median in so many digits."""
    value = median(values)
    decimals = max(0, digits - len(str(int(abs(value)))))
    return f"{value:,.{decimals}f}"


def ratios(case, peer, ours=OURS):
    """Of each round, how many times as good ours is."""
    a, b = case["values"].get(ours, []), case["values"].get(peer, [])
    more_is_better = case["unit"] == "tokens/s"
    return [x / y if more_is_better else y / x for x, y in zip(a, b)]


def times(r):
    return f"**{median(r):.2f}** ({min(r):.2f}–{max(r):.2f})" if len(r) > 1 else f"**{r[0]:.2f}**" if r else "—"


def best(case, name):
    """The engine whose name begins so with the best median, or None."""
    found = {e: median(v) for e, v in case["values"].items() if e.startswith(name)}
    pick = max if case["unit"] == "tokens/s" else min
    return pick(found, key=found.get) if found else None


def line(key, case):
    """For the terminal."""
    if case["unit"] in ("profile", "limits"):
        return key
    shown = [f"{e} {middle(v)}" for e, v in case["values"].items()]
    shown += [f"x{median(ratios(case, e)):.2f} {e}" for e in case["values"] if not e.startswith(OURS) and ratios(case, e)]
    shown += [f"{e}: {why}" for e, why in case["refusals"].items()]
    return f"{key} ({case['unit']}): " + "; ".join(shown)


def table(head, rows):
    return ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(r) + " |" for r in rows] + [""]


def between(points, x):
    """y at x, on straight lines between points whose x and y are logarithms."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x <= x1:
            return y0 * (y1 / y0) ** (log(x / x0) / log(x1 / x0))
    return points[-1][1]


class Report:
    def __init__(self, data):
        self.data, self.cases = data, data["cases"]

    def part(self, name):
        return {k: c for k, c in self.cases.items() if c["part"] == name}

    def share(self, case):
        """What the machine's limits allow over what a layer of ours took, or None."""
        rows = [r for c in self.part("limits").values() for r in c["values"][OURS][0]]
        work = case.get("work")
        if not rows or not work or OURS not in case["values"]:
            return None
        units = {"KB": 2 ** 10, "MB": 2 ** 20}
        reads = [(int(r["limit"].split()[2]) * units[r["limit"].split()[3]], r["all_threads"] * 1e9) for r in rows if r["unit"] == "GB/s"]
        speed = between(reads, work["all_bytes"])
        kind = "int8" if work["int8"] else "float"
        products = max(r["all_threads"] * 1e9 for r in rows if r["limit"].startswith(kind))
        return max(work["bytes"] / speed, work["products"] / products) * 1e6 / median(case["values"][OURS])

    # ---- parts; each returns lines, none when nothing was measured

    def limits(self):
        found = self.part("limits")
        if not found:
            return []
        rows = next(iter(found.values()))["values"][OURS][0]
        return ["### What the machine can do at most", "",
                "`dibit bench-op limits`: memory read over and over, and products added up in registers.",
                *table(["", "1 thread", f"{self.data['threads']} threads", ""],
                       [[r["limit"], f"{r['one_thread']:,.1f}", f"{r['all_threads']:,.1f}", r["unit"]] for r in rows])]

    def compared(self, title, cases, words=()):
        """Rows of Dibit beside the best form of each peer."""
        if not cases:
            return []
        rows = []
        for case in cases.values():
            row = [f"{case['title']}, {case['unit']}", middle(case["values"][OURS]) if OURS in case["values"] else "—"]
            for name in ("onnxruntime", "llama.cpp"):
                e = best(case, name)
                ours = "dibit, last row" if name == "llama.cpp" and "dibit, last row" in case["values"] else OURS
                form = e[len(name):].strip(", ") if e else ""
                row += [f"{middle(case['values'][e])}{f' ({form})' if form else ''}" if e else "—", times(ratios(case, e, ours)) if e else ""]
            row.insert(2, middle(case["values"]["dibit, last row"]) if "dibit, last row" in case["values"] else "")
            rows.append(row)
        head = ["", "Dibit", "Dibit, last row", "ONNX Runtime", "Dibit is × as good", "llama.cpp", "Dibit is × as good"]
        if all(not r[2] for r in rows):
            head.pop(2)
            rows = [r[:2] + r[3:] for r in rows]
        return [f"### {title}", *words, *table(head, rows)]

    def ops(self):
        cases = self.part("ops")
        if not cases:
            return []
        all_m = sorted({int(k.rsplit("/m", 1)[1]) for k in cases})
        rows, series = {}, {}
        for key, case in cases.items():
            name, m = case["title"].rsplit(", M = ", 1)
            r = ratios(case, "onnxruntime")
            ours, share = case["values"].get(OURS), self.share(case)
            text = (middle(ours) + (f", {100 * share:.0f} %" if share else "")) if ours else "—"
            rows.setdefault(name, {})[int(m)] = f"{text}: {times(r)}" if r else text
            if r:
                series.setdefault(name, []).append((int(m), median(r)))
        whole = {n: p for n, p in series.items() if len(p) > 2 and n.startswith("2048") and "block 32" in n}
        plot.lines(self.file("ops.svg"), "MatMulNBits 2048 x 2048, block 32: times as fast as ONNX Runtime", whole, "rows of A (M)", "times", one=True)
        return ["### Chains of MatMulNBits", "",
                "N = K; zero points and `accuracy_level` 4 unless said. Microseconds a layer with Dibit, what share of the machine's limit that is",
                "(of reading as many bytes, or of its fastest products, int8 or float, whichever binds), and times as fast as ONNX Runtime",
                "(least to most of the rounds). Only the first two where it refuses the node; with zero points and g_idx it crashes.",
                "*int8*: asked for by `--activations int8`, where it does not round activations and so Dibit on its own does not, either.",
                *table(["", *(f"M = {m}" for m in all_m)], [[n, *(r.get(m, "") for m in all_m)] for n, r in rows.items()]),
                f"![how many times as fast as ONNX Runtime, by M]({os.path.basename(self.file('ops.svg'))})", ""]

    def widths(self):
        cases = self.part("widths")
        if not cases:
            return []
        first = next(iter(cases.values()))["values"]
        return ["### All widths", "", "2048 x 2048, block 32, zero points, `accuracy_level` 4; microseconds a layer, all in one turn.",
                *table(["", *first], [[c["title"], *(middle(v) for v in c["values"].values())] for c in cases.values()])]

    def context(self):
        cases = self.part("context")
        if not cases:
            return []
        series = {}
        for key, case in cases.items():
            for name in (OURS, "onnxruntime", "llama.cpp"):
                e = best(case, name)
                if e:
                    label = {"dibit": "Dibit", "onnxruntime": "ONNX Runtime"}.get(name, e)
                    series.setdefault(label, []).append((int(key.split("/")[1]), median(case["values"][e])))
        plot.lines(self.file("context.svg"), "The shipped model: tokens/s of decoding after so many tokens", series, "tokens before", "tokens/s")
        return [*self.compared("Context", cases), f"![tokens/s by context]({os.path.basename(self.file('context.svg'))})", ""]

    def profiles(self):
        lines = []
        for key, case in self.part("profile").items():
            runs = sorted(case["values"][OURS], key=lambda r: r["profile_decode"]["total"]["cpu_us"])
            run = runs[len(runs) // 2]
            lines += ["### Where the time goes", "",
                      f"`dibit bench --profile`, {case['title']}: what each operator took, what it cannot do without, and how near it came",
                      "to what the machine could do with that: the longer of reading its bytes at the speed of a loop that reads as many",
                      "as the whole run, and of its products in registers. Above 100 %: its bytes were in nearer caches."]
            for title, profile in (("a decoded token after 256", run["profile_decode"]), ("a prefill of 256, all rows", run["profile_prefill"])):
                limits = profile["limits"]
                lines += ["", f"**{title}** ({limits['bytes_per_s'] / 1e9:.1f} GB/s, {limits['int8_products_per_s'] / 1e9:.0f} G int8 and "
                          f"{limits['float_products_per_s'] / 1e9:.0f} G float products/s)"]
                rows = [r for r in profile["ops"] if r["share"] >= 0.002] + [profile["total"]]
                lines += table(["operator", "µs", "share", "steps", "MB", "M products", "of the limit"],
                               [[r["op"], f"{r['cpu_us']:,.0f}", f"{100 * r['share']:.1f} %" if r is not rows[-1] else "", f"{r['steps']:.0f}",
                                 f"{r['bytes'] / 1e6:.2f}", f"{(r['int8_products'] + r['float_products']) / 1e6:,.1f}",
                                 f"{100 * r.get('of_the_limit', 0):.0f} % ({r.get('limit', '')})"] for r in rows])
        return lines

    def bandwidth(self):
        lines = []
        cases = self.part("bandwidth")
        for case in [cases[k] for k in cases if cases[k]["unit"] == "profile"]:
            rows = []
            for run in case["values"][OURS]:
                total, limits = run["profile_decode"]["total"], run["profile_decode"]["limits"]
                rows.append((run["decode_tokens_per_s"], total["bytes"] * run["decode_tokens_per_s"] / limits["bytes_per_s"],
                             total["bytes"], limits["bytes_per_s"]))
            rows.sort(key=lambda r: r[1])
            speed, share, size, limit = rows[len(rows) // 2]
            lines += ["### A model beyond the caches", "",
                      f"3.7 billion random weights, 2 bits, block 32, float16: {size / 1e9:.2f} GB a token. {speed:.2f} tokens/s, which is "
                      f"**{100 * share:.0f} %** ({100 * rows[0][1]:.0f}–{100 * rows[-1][1]:.0f} %) of the {limit / 1e9:.1f} GB/s that reading alone reached in the same run.", ""]
        return lines + self.compared("", {k: c for k, c in cases.items() if c["unit"] != "profile"})[1:]

    def file(self, name):
        return os.path.join(self.folder, f"bench-{name}")

    def text(self, folder):
        self.folder = folder
        d, v = self.data, self.data["versions"]
        peers = f"onnxruntime {v['onnxruntime']}" + (f"; llama.cpp {v['llama.cpp']} (node-llama-cpp {v['node-llama-cpp']})" if "llama.cpp" in v else "")
        commits = sorted({c["commit"] for c in self.cases.values()})
        lines = [f"{d['machine']}; {d['threads']} threads; {peers}; commit {', '.join(commits)}. Medians over rounds in which all took turns; a ratio is",
                 "the median of the rounds' ratios, above 1 in Dibit's favour, in parentheses the least and the most.", ""]
        lines += self.limits()
        lines += self.compared("Language models", self.part("models"))
        lines += self.ops() + self.widths()
        lines += self.compared("From the start of the program to the first token", self.part("start"))
        lines += self.context()
        lines += self.compared("Ten times the weights", self.part("size"))
        lines += self.bandwidth() + self.profiles()
        return "\n".join(lines).rstrip() + "\n"


def write(data, markdown):
    begin, end = "<!-- cpu -->\n", "<!-- /cpu -->"
    text = Report(data).text(os.path.dirname(os.path.abspath(markdown)))
    page = open(markdown).read() if os.path.exists(markdown) else begin + end + "\n"
    page = page[:page.index(begin) + len(begin)] + text + page[page.index(end):]
    with open(markdown, "w") as f:
        f.write(page)


if __name__ == "__main__":
    write(json.load(open(sys.argv[1])), sys.argv[2])
