#!/usr/bin/env python3
"""Compares `dibit run --greedy` with ONNX Runtime, token by token, on chat prompts.

    compare_greedy.py DIBIT MODEL_DIR [--tokens 64] [--prompts N]

MODEL_DIR has float32 inputs and outputs. For accuracy_level 4 as the file has it (--activations int8)
and for the same model without that attribute (--activations float), the prompt's tokens must be those
of the tokenizers package, and every token the one with ONNX Runtime's highest logit, given all tokens
before it (one run over prompt and answer).

Where they part, the tokens so far and ONNX Runtime's logits for them are written as an ONNX test set,
and `dibit check` says how far two right implementations may be apart there: the bound that it derives
from the rounding of every node. The divergence is accepted, and counted as a near tie, when the check
passes and ONNX Runtime's own margin between the two tokens is below twice that bound (each of the two
logits may be off by it). What follows is not compared.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import jinja2
import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from tokenizers import Tokenizer

PROMPTS = os.path.join(os.path.dirname(__file__), "..", "tests", "data", "greedy_prompts.txt")


def without_accuracy_level(path, out):
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        kept = [a for a in node.attribute if a.name != "accuracy_level"]
        del node.attribute[:]
        node.attribute.extend(kept)
    onnx.save(model, out)


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Model:
    def __init__(self, path, config, threads):
        self.sess = session(path, threads)
        inputs = self.sess.get_inputs()
        self.past_names = [i.name for i in inputs if i.name.startswith("past")]
        self.heads = next(i.shape[1] for i in inputs if i.name == self.past_names[0])
        self.head_dim = config["head_dim"]

    def logits(self, ids):
        """[len(ids), V]"""
        empty = np.zeros((1, self.heads, 0, self.head_dim), np.float32)
        feeds = {"input_ids": np.array([ids], np.int64),
                 "attention_mask": np.ones((1, len(ids)), np.int64)}
        feeds.update({name: empty for name in self.past_names})
        return self.sess.run(["logits"], feeds)[0][0]


def write_tensor(path, name, array):
    with open(path, "wb") as out:
        out.write(numpy_helper.from_array(np.ascontiguousarray(array), name).SerializeToString())


def allowed_distance(args, model, path, kind, ids, logits):
    """What `dibit check` allows between its logits and ONNX Runtime's after `ids`; None if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("model.onnx", "model.onnx.data"):
            os.symlink(os.path.abspath(os.path.join(os.path.dirname(path), name)),
                       os.path.join(folder, name))
        data = os.path.join(folder, "test_data_set_0")
        os.mkdir(data)
        empty = np.zeros((1, model.heads, 0, model.head_dim), np.float32)
        inputs = [("input_ids", np.array([ids], np.int64)),
                  ("attention_mask", np.ones((1, len(ids)), np.int64))]
        inputs += [(name, empty) for name in model.past_names]
        for i, (name, array) in enumerate(inputs):
            write_tensor(os.path.join(data, f"input_{i}.pb"), name, array)
        write_tensor(os.path.join(data, "output_0.pb"), "logits", logits[None])
        ran = subprocess.run([args.dibit, "check", "--json", "--activations", kind, "--threads",
                              str(args.threads), folder], capture_output=True, text=True)
        result = json.loads(ran.stdout)["cases"][0]["sets"][0]
        return result["outputs"][0]["allowed"] if result["result"] == "passed" else None


def compare(args, model, path, kind, config, ids, answer):
    """How many tokens agree, and None or (token, best, margin, bound) where they part."""
    said = answer + ([config["eos_token_id"]] if len(answer) < args.tokens else [])
    all_logits = model.logits(ids + said[:-1])
    logits = all_logits[len(ids) - 1:]
    for i, token in enumerate(said):
        best = int(np.argmax(logits[i]))
        if best != token:
            n = len(ids) + i
            bound = allowed_distance(args, model, path, kind, ids + said[:i], all_logits[:n])
            return i, (token, best, float(logits[i][best] - logits[i][token]), bound)
    return len(said), None


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dibit")
    parser.add_argument("model_dir")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--prompts", type=int, default=0, help="only the first N")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    config = json.load(open(os.path.join(args.model_dir, "config.json"), encoding="utf-8"))
    tokenizer = Tokenizer.from_file(os.path.join(args.model_dir, "tokenizer.json"))
    template = open(os.path.join(args.model_dir, "chat_template.jinja"), encoding="utf-8").read()
    template = jinja2.Template(template)
    model = os.path.join(args.model_dir, "model.onnx")
    with open(PROMPTS, encoding="utf-8") as file:
        prompts = file.read().removesuffix("\n").split("\n%%\n")[:args.prompts or None]
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        bare = os.path.join(folder, "model.onnx")
        without_accuracy_level(model, bare)
        shutil.copy(os.path.join(args.model_dir, "model.onnx.data"), folder)
        for kind, path in (("int8", model), ("float", bare)):
            reference = Model(path, config, args.threads)
            same = ties = compared = 0
            for number, prompt in enumerate(prompts):
                text = template.render(messages=[{"role": "user", "content": prompt}],
                                       add_generation_prompt=True)
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                ran = subprocess.run(
                    [args.dibit, "run", args.model_dir, "-p", prompt, "--greedy", "--json", "-n",
                     str(args.tokens), "--activations", kind, "--threads", str(args.threads)],
                    capture_output=True, text=True, check=True)
                got = json.loads(ran.stdout)
                if got["prompt_ids"] != ids:
                    print(f"{kind} prompt {number}: other prompt tokens")
                    failures += 1
                    continue
                n, parted = compare(args, reference, path, kind, config, ids, got["ids"])
                compared += n
                verdict = f"{n} tokens the same"
                if parted:
                    token, best, margin, bound = parted
                    near = bound is not None and margin < 2 * bound
                    ties += near
                    failures += not near
                    verdict += (f", then {token} for {best}: margin {margin:.3g}, "
                                + ("the check fails, " if bound is None else
                                   f"bound {bound:.3g}, ") + ("near tie" if near else "WRONG"))
                else:
                    same += 1
                print(f"{kind} prompt {number} ({len(ids)} tokens): {verdict}", flush=True)
            print(f"{kind}: {same} of {len(prompts)} prompts the same, {ties} near ties, "
                  f"{compared} tokens the same", flush=True)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
