"""The peer of bench.py: ONNX Runtime on the CPU in its best form. Prints JSON.

ort.py lm MODEL_DIR THREADS PROMPT_TOKENS GEN_TOKENS    buffers bound once, past and present share theirs
ort.py rows MODEL.onnx THREADS ROWS REPETITIONS         milliseconds of each run, buffers bound
"""
import json
import sys
import time

import numpy as np
import onnxruntime as ort


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def peak_rss():
    """Of this program alone: getrusage would count the one that started it too."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def language_model(folder, threads, n_prompt, n_gen):
    s = session(f"{folder}/model.onnx", threads)
    inputs, outputs = {i.name: i for i in s.get_inputs()}, {o.name: o for o in s.get_outputs()}
    capacity = n_prompt + n_gen
    binding = s.io_binding()
    pasts = [n for n in inputs if "past" in n]
    presents = [n for n in outputs if n != "logits"]
    kind = TYPES[inputs[pasts[0]].type]
    logits_kind = TYPES[outputs["logits"].type]
    config = json.load(open(f"{folder}/config.json"))
    heads = config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for past, present in zip(pasts, presents):
        value = ort.OrtValue.ortvalue_from_numpy(np.zeros((1, heads, capacity, head_dim), kind))
        binding.bind_ortvalue_input(past, value)
        binding.bind_ortvalue_output(present, value)
    vocabulary = config["vocab_size"]
    prompt = (np.arange(n_prompt, dtype=np.uint64) * 2654435761 % 2**32 % vocabulary).astype(np.int64)[None]
    logits = {n: ort.OrtValue.ortvalue_from_numpy(np.zeros((1, n, vocabulary), logits_kind)) for n in (1, n_prompt)}

    def step(ids, total):
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        if "position_ids" in inputs:
            binding.bind_cpu_input("position_ids", np.arange(total - ids.shape[1], total, dtype=np.int64)[None])
        out = logits[ids.shape[1]]
        binding.bind_ortvalue_output("logits", out)
        s.run_with_iobinding(binding)
        return out.numpy()[:, -1].argmax(-1)[None]

    for repeat in range(2):  # the first warms up
        start = time.perf_counter()
        token = step(prompt, n_prompt)
        first = time.perf_counter()
        for i in range(n_gen - 1):
            token = step(np.ascontiguousarray(token), n_prompt + 1 + i)
        end = time.perf_counter()
    return {"prefill_tokens_per_s": n_prompt / (first - start), "decode_tokens_per_s": (n_gen - 1) / (end - first),
            "ttft_ms": 1e3 * (first - start), "peak_rss_bytes": peak_rss()}


def rows(path, threads, n_rows, repetitions):
    s = session(path, threads)
    binding = s.io_binding()
    rng = np.random.default_rng(1)
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) else n_rows for d in i.shape]
        binding.bind_cpu_input(i.name, rng.standard_normal(shape).astype(TYPES[i.type]))
    for o in s.get_outputs():
        shape = [d if isinstance(d, int) else n_rows for d in o.shape]
        binding.bind_ortvalue_output(o.name, ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, TYPES[o.type])))
    times = []
    for i in range(repetitions + 2):
        start = time.perf_counter()
        s.run_with_iobinding(binding)
        times.append(1e3 * (time.perf_counter() - start))
    return times[2:]


if __name__ == "__main__":
    if sys.argv[1] == "lm":
        print(json.dumps(language_model(sys.argv[2], *map(int, sys.argv[3:6]))))
    else:
        print(json.dumps(rows(sys.argv[2], *map(int, sys.argv[3:6]))))
