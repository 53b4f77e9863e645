"""Dibit beside ONNX Runtime, interleaved in one run, with the same number of threads. usage:

    bench.py [--rounds 5] [--threads 2] [--build build/release] [--json FILE] [--markdown FILE]

Language model: the shipped one, prefill of 256 tokens (logits of all rows) and decoding of 64; ONNX Runtime
gets I/O binding and a cache that past and present share, and runs both the float16 file and its float32
variant (the better one counts). Operator: a chain of 16 MatMulNBits of 2048 x 2048, the same file for
both, microseconds a layer. Medians over the rounds, and the spread as (max - min) / median.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
MODEL = f"{ROOT}/models/smollm2-135m-instruct-2bit"
LAYERS, SIZE = 16, 2048


def run(*command):
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)


def chain_model(path, bits, block, zero_points):
    rng = np.random.default_rng(bits)
    nodes, tensors = [], []
    blocks = SIZE // block
    for i in range(LAYERS):
        names = [f"b{i}", f"s{i}"] + ([f"z{i}"] if zero_points else [])
        tensors.append(numpy_helper.from_array(rng.integers(0, 256, (SIZE, blocks, block * bits // 8), np.uint8), f"b{i}"))
        scale = (rng.random((SIZE, blocks)) + 0.5) / (2 ** bits * SIZE ** 0.5)
        tensors.append(numpy_helper.from_array(scale.astype(np.float32), f"s{i}"))
        if zero_points:
            tensors.append(numpy_helper.from_array(rng.integers(0, 256, (SIZE, -(-blocks * bits // 8)), np.uint8), f"z{i}"))
        nodes.append(helper.make_node("MatMulNBits", [f"x{i}"] + names, [f"x{i + 1}"], domain="com.microsoft", K=SIZE, N=SIZE,
                                      bits=bits, block_size=block, accuracy_level=4))
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", SIZE])
    graph = helper.make_graph(nodes, "chain", [value("x0")], [value(f"x{LAYERS}")], tensors)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
    onnx.save(model, path)


class Table:
    """Samples by row and engine."""

    def __init__(self):
        self.samples = {}

    def add(self, row, engine, value):
        self.samples.setdefault(row, {}).setdefault(engine, []).append(value)

    def cell(self, row, engine):
        v = self.samples[row][engine]
        middle = statistics.median(v)
        return f"{middle:,.1f} ± {100 * (max(v) - min(v)) / middle / 2:.0f} %"

    def ratio(self, row):
        a, b = (statistics.median(self.samples[row][e]) for e in ("dibit", "onnxruntime"))
        return a / b


def best_of(variants, better):
    """Of several forms of an engine, the samples of the one with the best median."""
    return better(variants, key=statistics.median)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", default=f"{ROOT}/build/release")
    parser.add_argument("--json", default=f"{ROOT}/build/bench.json")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    work = f"{ROOT}/build/bench"
    os.makedirs(work, exist_ok=True)
    subprocess.run([sys.executable, f"{ROOT}/tools/recipe/float32_variant.py", MODEL, f"{work}/float32"], check=True)
    chains = {"2 bits, block 32, zero points": (2, 32, True), "4 bits, block 32, zero points": (4, 32, True)}
    for i, shape in enumerate(chains.values()):
        chain_model(f"{work}/chain{i}.onnx", *shape)

    ours, peer = Table(), {}
    decode = "decode, tokens/s"
    prefill = "prefill of 256, all logits, tokens/s"
    memory = "peak resident memory, MB"
    for r in range(args.rounds):
        print(f"round {r + 1} of {args.rounds}", file=sys.stderr)
        b = run(f"{args.build}/dibit", "bench", MODEL, "--prompt-tokens", 256, "--gen-tokens", 64, "--threads", args.threads,
                "--repetitions", 1, "--json")
        ours.add(decode, "dibit", b["decode_tokens_per_s"])
        ours.add(prefill, "dibit", b["prefill_tokens_per_s"])
        ours.add("prefill of 256, last row of logits, tokens/s", "dibit", b["prefill_last_row_tokens_per_s"])
        ours.add(memory, "dibit", b["peak_rss_bytes"] / 1e6)
        for form in (MODEL, f"{work}/float32"):
            o = run(sys.executable, f"{HERE}/ort.py", "lm", form, args.threads, 256, 64)
            for row, key, scale in ((decode, "decode_tokens_per_s", 1), (prefill, "prefill_tokens_per_s", 1),
                                    (memory, "peak_rss_bytes", 1e-6)):
                peer.setdefault(row, {}).setdefault(form, []).append(o[key] * scale)
        for i, name in enumerate(chains):
            for rows in (1, 16, 128):
                row = f"MatMulNBits 2048 x 2048, {name}, M = {rows}, µs"
                n = 20 if rows < 128 else 5
                t = run(f"{args.build}/bench/bench_model", f"{work}/chain{i}.onnx", rows, args.threads, "auto", n)
                ours.add(row, "dibit", 1e3 * statistics.median(t) / LAYERS)
                t = run(sys.executable, f"{HERE}/ort.py", "rows", f"{work}/chain{i}.onnx", args.threads, rows, n)
                ours.add(row, "onnxruntime", 1e3 * statistics.median(t) / LAYERS)
    for row, forms in peer.items():
        ours.samples[row]["onnxruntime"] = best_of(forms.values(), min if row == memory else max)

    with open(args.json, "w") as f:
        json.dump({"machine": machine(), "threads": args.threads, "rounds": args.rounds, "samples": ours.samples}, f, indent=1)
    text = markdown(ours, args)
    print(text)
    if args.markdown:
        page = open(args.markdown).read()
        begin, end = "<!-- table -->\n", "<!-- /table -->"
        page = page[:page.index(begin) + len(begin)] + text + page[page.index(end):]
        open(args.markdown, "w").write(page)


def machine():
    name = platform.processor() or platform.machine()
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    return f"{name}, {os.cpu_count()} cores"


def markdown(table, args):
    import onnxruntime
    lines = [f"{machine()}; {args.threads} threads; onnxruntime {onnxruntime.__version__}; medians of {args.rounds} rounds, ± half the range.", "",
             "| | Dibit | ONNX Runtime | Dibit / ONNX Runtime |", "|---|---|---|---|"]
    for row, engines in table.samples.items():
        peer = "onnxruntime" in engines
        lines.append(f"| {row} | {table.cell(row, 'dibit')} | {table.cell(row, 'onnxruntime') if peer else '—'} | "
                     f"{f'{table.ratio(row):.2f}' if peer else ''} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
