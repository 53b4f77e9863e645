#!/usr/bin/env python3
"""More reference data for models in ONNX test-data folders, computed by ONNX Runtime on the CPU.

    oracle_extra.py CASES OUT [--only PATTERN] [--seed N]

CASES holds folders of model.onnx (with external data) and test_data_set_0, whose inputs say what an
empty past looks like. Each gets a folder in OUT with the model and further sets: prompts of 65 to 300
tokens with steps and chunks appended, ragged batches padded right and left, chunks that cross sliding
windows. States come from the outputs of an earlier set of the same folder, so that `dibit check
--chain` can follow them. What ONNX Runtime refuses is printed with its reason and left out.

Tables of rotary angles that are too short for such prompts are made longer in the copy. A model that
ONNX Runtime's CPU refuses altogether gets its references from NAME_nofuse beside it, when that gives
the outputs of the model's own test_data_set_0.
"""

import argparse
import collections
import fnmatch
import os
import re
import shutil
import sys
import tempfile
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper


ROTARY_ROWS = 384  # more than the longest sequence below
# Where nodes take their tables of cosines and sines.
ROTARY_INPUTS = {"GroupQueryAttention": (7, 8), "RotaryEmbedding": (2, 3)}


class Refused(Exception):
    """ONNX Runtime does not run this; the text is its reason."""


class Case:
    """A model, its session, and the sets written so far."""

    def __init__(self, source, out, seed):
        self.name = os.path.basename(source)
        self.out = out
        # The same inputs for a model and its variants (llama.q2, llama.q2.float).
        self.rng = np.random.default_rng([seed, zlib.crc32(self.name.split(".")[0].encode())])
        self.template = read_set(os.path.join(source, "test_data_set_0"))
        os.makedirs(out, exist_ok=True)
        copy_model(source, out)
        self.session = open_session(out)
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.pasts = [n for n in self.inputs if n.startswith("past")]
        known = {"input_ids", "attention_mask", "token_type_ids", "position_ids", *self.pasts}
        unknown = [n for n in self.inputs if n not in known]
        if unknown:
            raise Refused(f"inputs {unknown} have no rule here")
        logits = [o.shape[-1] for o in self.session.get_outputs() if o.name == "logits"]
        self.vocabulary = logits[0] if logits else int(self.template["input_ids"].max()) + 1
        self.n_sets = 0
        self.use_twin_if_refused(source)

    def use_twin_if_refused(self, source):
        try:
            self.outputs_of({n: self.template[n] for n in self.inputs})
            return
        except Refused as reason:
            name, dot, suffix = self.name.partition(".float")
            twin = os.path.join(os.path.dirname(source), name + "_nofuse" + dot + suffix)
            if not os.path.exists(os.path.join(twin, "model.onnx")):
                raise Refused(f"set 0: {reason}") from None
        with tempfile.TemporaryDirectory() as folder:
            copy_model(twin, folder)
            self.session = open_session(folder)
        result = self.outputs_of({n: self.template[n] for n in self.inputs})
        for name, value in result.items():
            if not np.allclose(value.astype(np.float32), self.template[name].astype(np.float32),
                               rtol=1e-3, atol=1e-3):
                raise Refused(f"{os.path.basename(twin)} gives another {name} for set 0")

    def ids(self, batch, length):
        return self.rng.integers(0, self.vocabulary, (batch, length))

    def empty(self, batch):
        return {n: np.repeat(self.template[n][:1], batch, axis=0) for n in self.pasts}

    def states(self, result):
        """The past that continues a result: present.X becomes the input that ends in .X."""
        states = {}
        for name in self.pasts:
            suffix = re.sub(r"^past(_key_values)?\.", "", name)
            states[name] = result["present." + suffix]
        return states

    def compute(self, ids, mask, past):
        feed = {"input_ids": ids, "attention_mask": mask, **past}
        if "token_type_ids" in self.inputs:
            feed["token_type_ids"] = np.arange(ids.shape[1])[None, :].repeat(len(ids), 0) % 2
        if "position_ids" in self.inputs:
            feed["position_ids"] = np.maximum(np.cumsum(mask, 1)[:, -ids.shape[1]:] - 1, 0)
        feed = {n: np.ascontiguousarray(feed[n]) for n in self.inputs}
        return feed, self.outputs_of(feed)

    def outputs_of(self, feed):
        try:
            results = self.session.run(None, feed)
        except Exception as error:  # its exceptions share no base class
            text = re.sub(r"\s+", " ", str(error))
            raise Refused(re.sub(r"^.*Status Message: ", "", text)[:200]) from None
        result = dict(zip(self.outputs, results))
        for name, value in result.items():
            if not np.isfinite(value).all():
                raise Refused(f"output {name} is not finite")
        return result

    def clear_unfilled(self, result, mask):
        """Zeros the rows of windowed caches that hold no token yet: ONNX Runtime leaves there what
        its memory held."""
        tokens = mask.sum(axis=1)
        for name, state in self.states(result).items():
            if state.ndim == 4 and state.shape[2] == self.template[name].shape[2]:
                for row, n in zip(state, tokens):
                    row[:, n:] = 0

    def run(self, ids, mask, past):
        """Computes and writes a set; returns the states after it."""
        feed, result = self.compute(ids, mask, past)
        self.clear_unfilled(result, mask)
        folder = os.path.join(self.out, f"test_data_set_{self.n_sets}")
        os.makedirs(folder, exist_ok=True)
        write_tensors(folder, "input", feed)
        write_tensors(folder, "output", result)
        self.n_sets += 1
        return self.states(result)

    def steps(self, lengths, batch=1):
        """Runs a prompt of lengths[0], then chunks of the further lengths."""
        past, total = self.empty(batch), 0
        for length in lengths:
            total += length
            ones = np.ones((batch, total), np.int64)
            past = self.run(self.ids(batch, length), ones, past)


def open_session(folder):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    # DequantizeLinear and MatMul become MatMulNBits: with float activations, as the graph has it.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    path = os.path.join(folder, "model.onnx")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def copy_model(source, out):
    """Copies a model; where its rotary tables are short, with longer ones."""
    model = onnx.load(os.path.join(source, "model.onnx"))
    tensors = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    pairs = set()
    for node in model.graph.node:
        at = ROTARY_INPUTS.get(node.op_type)
        if at and len(node.input) > at[1]:
            pairs.add((node.input[at[0]], node.input[at[1]]))
    changed = False
    for cos_name, sin_name in sorted(pairs):
        if cos_name in tensors and sin_name in tensors:
            changed |= lengthen(tensors[cos_name], tensors[sin_name])
    for file in os.listdir(source):
        if os.path.isfile(os.path.join(source, file)) and not changed:
            shutil.copy(os.path.join(source, file), out)
    if changed:
        onnx.save_model(model, os.path.join(out, "model.onnx"), save_as_external_data=True,
                        location="model.onnx.data", size_threshold=1024)


def lengthen(cos_tensor, sin_tensor):
    """Continues a table: row p holds cos(p * angle) * scale, and the angle is seen in row 1."""
    cos, sin = numpy_helper.to_array(cos_tensor), numpy_helper.to_array(sin_tensor)
    if cos.ndim != 2 or not 2 <= len(cos) < ROTARY_ROWS:
        return False
    angle = np.arctan2(sin[1].astype(np.float64), cos[1].astype(np.float64))
    scale = float(cos[0, 0])
    rows = np.arange(len(cos), ROTARY_ROWS)[:, None] * angle[None, :]
    for tensor, old, new in ((cos_tensor, cos, np.cos(rows)), (sin_tensor, sin, np.sin(rows))):
        table = np.concatenate([old, (new * scale).astype(old.dtype)])
        tensor.CopyFrom(numpy_helper.from_array(table, tensor.name))
    return True


def read_set(folder):
    tensors = {}
    for file in os.listdir(folder):
        with open(os.path.join(folder, file), "rb") as f:
            tensor = onnx.TensorProto.FromString(f.read())
        tensors[tensor.name] = numpy_helper.to_array(tensor)
    return tensors


def write_tensors(folder, kind, tensors):
    for i, (name, value) in enumerate(tensors.items()):
        with open(os.path.join(folder, f"{kind}_{i}.pb"), "wb") as f:
            f.write(numpy_helper.from_array(value, name).SerializeToString())


def padded_mask(lengths, total, left):
    """Row b has lengths[b] ones, at its end (left) or its beginning."""
    column = np.arange(total)[None, :]
    lengths = np.asarray(lengths)[:, None]
    return (column >= total - lengths if left else column < lengths).astype(np.int64)


# ---- Decoders: each scenario writes sets, or raises Refused before it has written one -----------


def long_prompt(case):
    case.steps([int(case.rng.integers(65, 120)), 1, 17, 1])


def longer_prompt(case):
    case.steps([int(case.rng.integers(120, 301)), 33, 1])


def long_batch(case):
    case.steps([int(case.rng.integers(65, 129)), 1, 1], batch=2)


def small_chunks(case):
    case.steps([5, 3, 1, 8, 2, 1, 6])


def one_by_one(case):
    case.steps([1] * 10)


def ragged(case, left):
    """A padded prompt, then steps that continue each row where its own tokens end."""
    width = 11 if left else 13
    lengths = [width, 6, 1, 9]
    past = case.run(case.ids(4, width), padded_mask(lengths, width, left), case.empty(4))
    for step in (1, 2):
        lengths = [length + 1 for length in lengths]
        mask = padded_mask(lengths, width + step, left)
        past = case.run(case.ids(4, 1), mask, past)


def ragged_merged(case):
    """Steps of a batch whose pasts were made one by one: also where no padded prompt is taken."""
    lengths = [14, 3, 8]
    rows = []
    for length in lengths:
        _, result = case.compute(case.ids(1, length), np.ones((1, length), np.int64), case.empty(1))
        rows.append(case.states(result))
    past = {name: merge([row[name] for row in rows]) for name in case.pasts}
    for step in (1, 2):
        mask = padded_mask([length + step for length in lengths], max(lengths) + step, False)
        past = case.run(case.ids(len(lengths), 1), mask, past)


def merge(rows):
    """Stacks pasts of different lengths (axis 2), the shorter ones padded with zeros."""
    if rows[0].ndim < 4:
        return np.concatenate(rows)
    longest = max(row.shape[2] for row in rows)
    return np.concatenate(
        [np.pad(r, ((0, 0), (0, 0), (0, longest - r.shape[2]), (0, 0))) for r in rows])


def batch_chunk(case):
    """More than one token appended to a batch of two."""
    case.steps([5, 4], batch=2)


def ragged_right(case):
    ragged(case, left=False)


def ragged_left(case):
    ragged(case, left=True)


DECODER = [long_prompt, longer_prompt, long_batch, small_chunks, one_by_one, ragged_right, ragged_left,
           ragged_merged, batch_chunk]

# ---- Encoders -----------------------------------------------------------------------------------


def encoder_padded(case, left):
    case.run(case.ids(3, 10), padded_mask([10, 4, 1], 10, left), {})


def encoder_right(case):
    encoder_padded(case, left=False)


def encoder_left(case):
    encoder_padded(case, left=True)


def encoder_holes(case):
    mask = case.rng.integers(0, 2, (2, 12))
    mask[:, 3] = 1
    case.run(case.ids(2, 12), mask, {})


def encoder_long(case):
    length = int(case.rng.integers(65, 301))
    case.run(case.ids(1, length), np.ones((1, length), np.int64), {})


def encoder_middle(case):
    case.run(case.ids(2, 60), padded_mask([60, 33], 60, False), {})


ENCODER = [encoder_right, encoder_left, encoder_holes, encoder_middle, encoder_long]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases")
    parser.add_argument("out")
    parser.add_argument("--only", default="*", help="names of cases, with * and ?")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    n_cases = n_refused = 0
    n_sets = collections.Counter()  # of each scenario
    for name in sorted(os.listdir(args.cases)):
        source = os.path.normpath(os.path.join(args.cases, name))
        if not fnmatch.fnmatch(name, args.only) or not os.path.exists(source + "/model.onnx"):
            continue
        try:
            case = Case(source, os.path.join(args.out, name), args.seed)
        except Refused as reason:
            print(f"{name}: skipped: {reason}")
            n_refused += 1
            continue
        n_cases += 1
        for scenario in DECODER if case.pasts else ENCODER:
            first = case.n_sets
            try:
                scenario(case)
                print(f"{name}: {scenario.__name__}: sets {first} to {case.n_sets - 1}")
            except Refused as reason:
                print(f"{name}: {scenario.__name__}: refused after {case.n_sets - first} sets: "
                      f"{reason}")
                n_refused += 1
            n_sets[scenario.__name__] += case.n_sets - first
    print("; ".join(f"{scenario} {n}" for scenario, n in n_sets.items()))
    print(f"{n_cases} cases, {n_sets.total()} sets, {n_refused} refused")
    return 0 if n_cases else 1


if __name__ == "__main__":
    sys.exit(main())
