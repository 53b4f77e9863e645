"""What bench.py measures: the cases of each part. A case is a row of a table: a question, and who answers it how.

Who: (engine, label) to a task. A task names a worker (a program that keeps a model loaded), the line that it is
asked, and what its answer is to be divided into or multiplied with.
"""
from collections import namedtuple

import models

Worker = namedtuple("Worker", "program folder threads")  # program: dibit-lm, dibit-rows, ort-lm, ort-rows, llama, start-..., profile
Task = namedtuple("Task", "worker line per scale")  # value = per / answer, or answer * scale where per is 0
Case = namedtuple("Case", "part key title unit tasks rounds work")  # tasks: engine -> Task; work: of a layer, or None

PARTS = ("limits", "models", "ops", "widths", "start", "context", "size", "bandwidth", "profile")
CONTEXT = 8128  # the models end at 8,192


def speed(program, folder, threads, line, tokens):
    return Task(Worker(program, folder, threads), line, tokens, 0)


def work_of(asked, size, layers, m, bits, block, zero_points="packed", level=4, g_idx=False):
    """What a layer cannot do without, and how many bytes all layers read. asked: for int8 activations."""
    int8 = asked or (level == 4 and not g_idx and zero_points != "float" and block >= 32)
    blocks = size // block
    weights = size * (size * bits // 8 + blocks * 4 + {None: 0, "float": blocks * 4, "packed": -(-blocks * bits // 8)}[zero_points])
    return {"bytes": weights + 8 * m * size, "products": m * size * size, "all_bytes": layers * (weights + 8 * m * size),
            "int8": int8}


class Builder:
    """Makes the cases; models are written when their workers are started."""

    def __init__(self, work, threads, quick):
        self.work, self.threads, self.quick, self.cases, self.make = work, threads, quick, [], {}

    def add(self, part, key, title, unit, tasks, rounds, work=None):
        self.cases.append(Case(part, f"{part}/{key}", title, unit, tasks, 3 if self.quick else rounds, work))

    def folder(self, name, write, *args, **kwargs):
        folder = f"{self.work}/{name}"
        self.make[folder] = lambda: write(folder, *args, **kwargs)
        return folder

    # ---- language models: engine -> (program, folder)

    def shipped(self):
        return {"dibit": ("dibit-lm", models.SHIPPED), "onnxruntime": ("ort-lm", models.SHIPPED),
                "onnxruntime, float32 variant": ("ort-lm", self.folder("float32", models.float32_variant)),
                "llama.cpp Q4_0": ("llama", self.folder("gguf-135M-Q4_0", models.gguf, "135M", "Q4_0", "Q4_0"))}

    def random(self, shape, bits, head_bits, gguf, gguf_head, half=False):
        onnx = self.folder(f"llama-{shape}-{bits}{'-half' if half else ''}", models.llama, shape, bits, head_bits, half)
        return {"dibit": ("dibit-lm", onnx), "onnxruntime": ("ort-lm", onnx),
                f"llama.cpp {gguf}": ("llama", self.folder(f"gguf-{shape}-{gguf}", models.gguf, shape, gguf, gguf_head))}

    def decode(self, part, key, title, engines, context, n, rounds, threads=None):
        self.add(part, key, title, "tokens/s", {e: speed(*who, threads or self.threads, f"decode {context} {n}", n)
                                                for e, who in engines.items()}, rounds)

    def prefill(self, part, key, title, engines, n, rounds, threads=None):
        """Dibit's with all rows of logits stands beside ONNX Runtime's, with the last row beside llama.cpp's."""
        t = threads or self.threads
        tasks = {e: speed(*who, t, f"prefill {n} {'last' if who[0] == 'llama' else 'all'}", n) for e, who in engines.items()}
        tasks["dibit, last row"] = speed(*engines["dibit"], t, f"prefill {n} last", n)
        self.add(part, key, title, "tokens/s", tasks, rounds)

    def memory(self, part, key, title, engines):
        self.add(part, key, title, "MB", {e: Task(Worker(*who, self.threads), "memory", 0, 1e-6) for e, who in engines.items()}, 1)

    def models(self):
        for key, title, engines in (
                ("2", "2 bits (shipped)", self.shipped()), ("4", "4 bits", self.random("135M", 4, 4, "Q4_0", "Q4_0")),
                ("8", "8 bits", self.random("135M", 8, 8, "Q8_0", "Q8_0"))):
            self.decode("models", f"{key}/decode", f"{title}: decode after 256 tokens", engines, 256, 32, 7)
            self.prefill("models", f"{key}/prefill", f"{title}: prefill of 256", engines, 256, 5)
            self.memory("models", f"{key}/memory", f"{title}: peak memory, decoding", engines)
            if key == "2" and not self.quick:
                self.decode("models", "2/decode1", f"{title}: decode after 256 tokens, 1 thread", engines, 256, 32, 3, threads=1)
                self.prefill("models", "2/prefill1", f"{title}: prefill of 256, 1 thread", engines, 256, 3, threads=1)

    # ---- chains of MatMulNBits

    def chain(self, part, key, title, size, layers, m, rounds, asked=False, **nbits):
        """asked: Dibit for int8 activations, where it takes others on its own."""
        folder = self.folder(f"chain-{size}-{'-'.join(f'{k}{v}' for k, v in nbits.items())}", models.chain, size, layers, **nbits)
        programs = {"dibit": "dibit-rows-int8" if asked else "dibit-rows", "onnxruntime": "ort-rows"}
        self.add(part, f"{key}/m{m}", f"{title}, M = {m}", "us",
                 {e: Task(Worker(program, folder, self.threads), f"{m} 0.04", 0, 1e6 / layers) for e, program in programs.items()},
                 rounds, work_of(asked, size, layers, m, **nbits))

    def ops(self):
        sizes = ((2048, 8),) if self.quick else ((2048, 8), (4096, 4))
        for size, layers in sizes:
            for bits in (2, 4, 8):
                for block in (32,) if self.quick else (32, 64):
                    for m in (1, 16, 128) if self.quick else (1, 4, 16, 128, 512):
                        self.chain("ops", f"{size}/{bits}/{block}", f"{size}, {bits} bits, block {block}", size, layers, m,
                                   5 if m < 128 else 3, bits=bits, block=block)
        float_zeros, asked = {"block": 32, "zero_points": "float"}, {"asked": True}
        for name, options in {"block 16": {"block": 16}, "float zero points": float_zeros,
                              "g_idx, no zero points": {"block": 32, "g_idx": True, "level": 0, "zero_points": None},
                              "accuracy_level 0": {"block": 32, "level": 0},
                              "block 16, int8": {"block": 16, **asked}, "float zero points, int8": {**float_zeros, **asked}}.items():
            for m in (1,) if self.quick else (1, 16):
                self.chain("ops", f"2048/2/{name}", f"2048, 2 bits, {name}", 2048, 8, m, 5, bits=2, **options)

    def widths(self):
        for m in (1,) if self.quick else (1, 16, 128):
            tasks = {}
            for bits in range(1, 9):
                folder = self.folder(f"chain-2048-bits{bits}-block32", models.chain, 2048, 8, bits=bits, block=32)
                tasks[f"{bits} bits"] = Task(Worker("dibit-rows", folder, self.threads), f"{m} 0.03", 0, 1e6 / 8)
            self.add("widths", f"m{m}", f"M = {m}", "us", tasks, 5)

    # ---- the rest

    def start(self):
        for cold in (False, True):
            tasks = {e: Task(Worker(f"start-{program}", folder, self.threads), "cold" if cold else "warm", 0, 1e3)
                     for e, (program, folder) in self.shipped().items()}
            self.add("start", "cold" if cold else "warm", "files not in memory" if cold else "files in the page cache", "ms", tasks, 5)

    def context(self):
        engines = {e: ("llama-long" if program == "llama" else program, folder) for e, (program, folder) in self.shipped().items()}
        for n in (128, 1024) if self.quick else (128, 512, 2048, CONTEXT):
            self.decode("context", f"{n}", f"decode after {n} tokens", engines, n, 16 if n < 2048 else 8, 3)

    def size(self):
        engines = self.random("1.3B", 2, 4, "Q2_K", "Q4_0", half=True)
        self.decode("size", "decode", "1.3 billion weights: decode after 64", engines, 64, 8, 3)
        self.prefill("size", "prefill", "1.3 billion weights: prefill of 64", engines, 64, 3)
        small = {"dibit": self.shipped()["dibit"]}
        self.decode("size", "small", "the shipped model: decode after 64", small, 64, 32, 3)

    def bandwidth(self):
        engines = self.random("3.7B", 2, 4, "Q2_K", "Q4_0", half=True)
        self.add("bandwidth", "share", "decode: the share of the bandwidth", "profile",
                 {"dibit": Task(Worker("profile", engines["dibit"][1], self.threads), "8 8", 0, 1)}, 3)
        self.decode("bandwidth", "decode", "3.7 billion weights: decode after 8", engines, 8, 4, 3)

    def profile(self):
        self.add("profile", "135M", "the shipped model", "profile",
                 {"dibit": Task(Worker("profile", models.SHIPPED, self.threads), "256 32", 0, 1)}, 3)

    def limits(self):
        self.add("limits", "machine", "what the machine can do at most", "limits",
                 {"dibit": Task(Worker("limits", "", self.threads), "", 0, 1)}, 1)


def make(work, threads, quick, only):
    builder = Builder(work, threads, quick)
    for part in PARTS:
        if part in only:
            getattr(builder, part)()
    return builder.cases, builder.make
