"""The peer of bench.py: ONNX Runtime on the CPU in its best form: full graph optimisation, buffers bound once,
past and present in one shared cache. Prints "ready", then answers lines of standard input with a number:

ort.py lm MODEL_DIR THREADS      as `dibit bench --serve`; logits are always those of all rows
ort.py rows MODEL_DIR THREADS    as bench_model.c
ort.py start MODEL_DIR THREADS   no lines: seconds from before the import to the first of 5 tokens' next one
"""
import sys
import time

BEGIN = time.perf_counter()
import json

import numpy as np
import onnxruntime as ort

TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def session(folder, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])


def peak_rss():
    """Of this program alone: getrusage would count the one that started it too."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


class LanguageModel:
    def __init__(self, folder, threads):
        self.session = session(folder, threads)
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = {o.name: o for o in self.session.get_outputs()}
        self.config = json.load(open(f"{folder}/config.json"))
        self.vocabulary = self.config["vocab_size"]
        self.capacity, self.logits = 0, {}

    def reserve(self, capacity):
        """A cache of so many tokens, bound as past and as present. Noise stands in it: only its size matters."""
        if capacity <= self.capacity:
            return
        self.capacity, self.binding = capacity, self.session.io_binding()
        pasts = [n for n in self.inputs if "past" in n]
        heads = self.config["num_key_value_heads"]
        head_dim = self.config.get("head_dim") or self.config["hidden_size"] // self.config["num_attention_heads"]
        noise = np.random.default_rng(1).standard_normal((1, heads, capacity, head_dim))
        for past, present in zip(pasts, [n for n in self.outputs if n != "logits"]):
            value = ort.OrtValue.ortvalue_from_numpy(noise.astype(TYPES[self.inputs[past].type]))
            self.binding.bind_ortvalue_input(past, value)
            self.binding.bind_ortvalue_output(present, value)

    def step(self, ids, total):
        n = ids.shape[1]
        if n not in self.logits:
            kind = TYPES[self.outputs["logits"].type]
            self.logits = {k: v for k, v in self.logits.items() if k == 1}  # those of prompts are large
            self.logits[n] = ort.OrtValue.ortvalue_from_numpy(np.zeros((1, n, self.vocabulary), kind))
        self.binding.bind_cpu_input("input_ids", ids)
        self.binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        if "position_ids" in self.inputs:
            self.binding.bind_cpu_input("position_ids", np.arange(total - n, total, dtype=np.int64)[None])
        self.binding.bind_ortvalue_output("logits", self.logits[n])
        self.session.run_with_iobinding(self.binding)
        return np.ascontiguousarray(self.logits[n].numpy()[:, -1].argmax(-1)[None])

    def prefill(self, n, rows="all"):
        self.reserve(n)
        prompt = (np.arange(n, dtype=np.uint64) * 2654435761 % 2**32 % self.vocabulary).astype(np.int64)[None]
        start = time.perf_counter()
        self.step(prompt, n)
        return time.perf_counter() - start

    def decode(self, context, n):
        self.reserve(context + n + 1)  # one token before the clock starts
        token = self.step(np.array([[1]], np.int64), context + 1)
        start = time.perf_counter()
        for i in range(n):
            token = self.step(token, context + 2 + i)
        return time.perf_counter() - start


def chain(folder, threads):
    """A function: the median seconds of runs with so many rows, for so many seconds."""
    s = session(folder, threads)
    rng = np.random.default_rng(1)
    bindings = {}

    def bind(n_rows):
        binding = s.io_binding()
        for i in s.get_inputs():
            shape = [d if isinstance(d, int) else n_rows for d in i.shape]
            binding.bind_cpu_input(i.name, rng.standard_normal(shape).astype(TYPES[i.type]))
        for o in s.get_outputs():
            shape = [d if isinstance(d, int) else n_rows for d in o.shape]
            binding.bind_ortvalue_output(o.name, ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, TYPES[o.type])))
        s.run_with_iobinding(binding)
        return binding

    def rows(n_rows, seconds):
        if n_rows not in bindings:
            bindings[n_rows] = bind(n_rows)
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            start = time.perf_counter()
            s.run_with_iobinding(bindings[n_rows])
            times.append(time.perf_counter() - start)
        return float(np.median(times))

    return rows


def serve(answer):
    print("ready", flush=True)
    for line in sys.stdin:
        print(answer(*line.split()), flush=True)


def main():
    mode, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if mode == "rows":
        rows = chain(folder, threads)
        serve(lambda n, seconds: rows(int(n), float(seconds)))
        return
    model = LanguageModel(folder, threads)
    if mode == "start":
        model.prefill(5)
        print(time.perf_counter() - BEGIN)
        return
    serve(lambda what, *of: peak_rss() if what == "memory" else model.prefill(int(of[0])) if what == "prefill"
          else model.decode(int(of[0]), int(of[1])))


if __name__ == "__main__":
    main()
