#!/usr/bin/env python3
"""Tiny random models of many architectures as ONNX test-data folders, with ONNX Runtime's outputs.

    make_cases.py OUT [--arch PATTERN] [--variant PATTERN] [--seed N] [--list]

Needs: pip install torch transformers onnxruntime-genai onnxruntime onnx. Models come from
onnxruntime-genai's model builder; OUT/ARCH.VARIANT holds model.onnx and the sets prompt, step, a
batch of two, and chunk appended to the step, for `dibit check` and `dibit check --chain`. A model with an
accuracy_level also gives ARCH.VARIANT.float without it. What the builder or ONNX Runtime's CPU
refuses is printed with its reason and left out.
"""

import argparse
import contextlib
import fnmatch
import io
import logging
import os
import re
import shutil
import sys
import tempfile
import zlib

import numpy as np
import onnx
import onnxruntime as ort
import tokenizers
import torch
import transformers
from onnx import numpy_helper

VOCABULARY = 320
SIZES = dict(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
MOE = dict(num_local_experts=4, num_experts_per_tok=2)
LONG_ROPE = dict(original_max_position_embeddings=8,
                 rope_parameters=dict(rope_type="longrope", type="longrope", rope_theta=10000.0,
                                      original_max_position_embeddings=8,
                                      short_factor=[1.0] * 8,
                                      long_factor=[1.5 + i / 4 for i in range(8)]))
LINEAR = dict(head_dim=32, layer_types=["linear_attention", "full_attention"],
              linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2,
              linear_num_value_heads=4)
VISION = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=64)

# Name: (class of transformers' config, what differs from SIZES).
ARCHITECTURES = {
    "llama": ("Llama", {}),
    "llama_1head": ("Llama", dict(num_attention_heads=1, num_key_value_heads=1, head_dim=16)),
    "llama_5heads": ("Llama", dict(hidden_size=80, num_attention_heads=5, num_key_value_heads=5,
                                   intermediate_size=144)),
    "llama_7to1": ("Llama", dict(hidden_size=112, num_attention_heads=7, num_key_value_heads=1,
                                 intermediate_size=200, attention_bias=True, mlp_bias=True)),
    "llama_head64": ("Llama", dict(head_dim=64, tie_word_embeddings=True)),
    "llama_head24": ("Llama", dict(head_dim=24, hidden_size=72)),
    "llama_linear": ("Llama", dict(rope_parameters=dict(rope_type="linear", factor=2.0,
                                                        rope_theta=10000.0))),
    "llama_yarn": ("Llama", dict(rope_parameters=dict(
        rope_type="yarn", factor=4.0, rope_theta=10000.0, beta_fast=32.0, beta_slow=1.0,
        original_max_position_embeddings=64))),
    "mistral": ("Mistral", dict(sliding_window=5)),
    "qwen2": ("Qwen2", {}),
    "qwen2_tied": ("Qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3", dict(head_dim=32, tie_word_embeddings=True)),
    "qwen3_5": ("Qwen3_5", dict(**LINEAR)),
    "qwen3_5_moe": ("Qwen3_5Moe", dict(**LINEAR, num_experts=4, num_experts_per_tok=2,
                                       moe_intermediate_size=64,
                                       shared_expert_intermediate_size=64)),
    "qwen3_vl": ("Qwen3VL", dict(head_dim=16, rope_parameters=dict(
        rope_type="default", rope_theta=10000.0, mrope_section=[4, 2, 2]))),
    "qwen2_5_vl": ("Qwen2_5_VL", dict(rope_parameters=dict(
        rope_type="default", rope_theta=10000.0, mrope_section=[4, 2, 2]))),
    "gemma": ("Gemma", dict(head_dim=32, num_key_value_heads=1)),
    "gemma2": ("Gemma2", dict(head_dim=32, sliding_window=6, query_pre_attn_scalar=24,
                              final_logit_softcapping=5.0, attn_logit_softcapping=2.0)),
    "phi": ("Phi", dict(hidden_size=128, partial_rotary_factor=0.5, num_key_value_heads=4)),
    "phi3": ("Phi3", dict(original_max_position_embeddings=256)),
    "phi3_long": ("Phi3", LONG_ROPE),
    "gptoss": ("GptOss", dict(head_dim=16, sliding_window=6, **MOE, rope_parameters=dict(
        rope_type="yarn", factor=4.0, rope_theta=10000.0, beta_fast=4.0, beta_slow=1.0,
        original_max_position_embeddings=64, truncate=False))),
    "granite": ("Granite", dict(embedding_multiplier=3.0, residual_multiplier=0.5,
                                attention_multiplier=0.2, logits_scaling=2.0)),
    "granite_hybrid": ("GraniteMoeHybrid", dict(
        layer_types=["attention", "attention"], shared_intermediate_size=96, num_local_experts=0,
        embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.2)),
    "olmo": ("Olmo", {}),
    "nemotron": ("Nemotron", dict(head_dim=32, partial_rotary_factor=0.5)),
    "ernie": ("Ernie4_5", dict(head_dim=16)),
    "hunyuan": ("HunYuanDenseV1", dict(head_dim=16)),
    "lfm2": ("Lfm2", dict(layer_types=["conv", "full_attention"], block_ff_dim=96)),
    "lfm2_moe": ("Lfm2Moe", dict(layer_types=["conv", "full_attention"], num_dense_layers=1,
                                 moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2)),
}

# Name: (precision, execution provider, further options).
VARIANTS = {
    "fp32": ("fp32", "cpu", {}),
    "fp32_unpacked": ("fp32", "cpu", dict(fuse_qkv=False)),
    "fp32_hidden": ("fp32", "cpu", dict(include_hidden_states=True)),
    "fp32_embeds": ("fp32", "cpu", dict(exclude_embeds=True)),
    "fp32_nohead": ("fp32", "cpu", dict(exclude_lm_head=True)),
    "fp32_fullcache": ("fp32", "cpu", dict(windowed_kv_cache=False)),
    "fp32_cuda": ("fp32", "cuda", {}),
    "fp16_cpu": ("fp16", "cpu", {}),
    "fp16_cuda": ("fp16", "cuda", {}),
    "fp16_dml": ("fp16", "dml", {}),
    "fp16_webgpu": ("fp16", "webgpu", {}),
    "int4": ("int4", "cpu", {}),
    "int4_asym16": ("int4", "cpu", dict(is_symmetric=False, matmul_block_size=16)),
    "int4_b256": ("int4", "cpu", dict(matmul_block_size=256)),
    "int4_kquant": ("int4", "cpu", dict(algo_config="k_quant_mixed")),
    "int4_rtnlast": ("int4", "cpu", dict(algo_config="rtn_last")),
    "int4_qdq": ("int4", "cpu", dict(use_qdq=True)),
    "int4_moe8": ("int4", "cpu", dict(moe_quant_type="int8")),
    "int4_gateup": ("int4", "cpu", dict(fuse_mlp_gate_up=True)),
    "int4_cuda": ("int4", "cuda", {}),
    "int4_dml": ("int4", "dml", {}),
    "int4_webgpu": ("int4", "webgpu", {}),
    "int4_webgpu32": ("int4", "webgpu", dict(use_webgpu_fp32=True)),
    "int4_webgraph": ("int4", "webgpu", dict(enable_webgpu_graph=True)),
    "int8": ("int8", "cpu", {}),
    "int8_asym64": ("int8", "cpu", dict(is_symmetric=False, matmul_block_size=64)),
}


class Refused(Exception):
    """A tool does not make or run this; the text is its reason."""


def reason_of(error):
    text = re.sub(r"\s+", " ", str(error)) or type(error).__name__
    return re.sub(r"^.*Status Message: ", "", text)[:160]


# ---- Checkpoints --------------------------------------------------------------------------------


def write_checkpoint(name, folder, seed):
    """A random model of transformers with a tokenizer, as the builder reads them."""
    family, changes = ARCHITECTURES[name]
    config_class = getattr(transformers, family + "Config", None)
    if not config_class:
        raise Refused(f"transformers has no {family}Config")
    torch.manual_seed(seed + zlib.crc32(name.encode()))
    if "text_config" in config_class.sub_configs:
        config = config_class(text_config={**SIZES, **changes}, vision_config=VISION)
        model = getattr(transformers, family + "ForConditionalGeneration")(config)
    else:
        config = config_class(**{**SIZES, **changes})
        model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    words = {f"t{i}": i for i in range(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="t0"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="t0",
                                         eos_token="t2").save_pretrained(folder)


def build(checkpoint, out, variant, cache):
    """Runs the builder; its progress is of no interest unless it fails."""
    import onnxruntime_genai.models as package
    logging.disable(logging.WARNING)
    sys.path.insert(0, os.path.dirname(package.__file__))
    from builder import create_model, parse_extra_options
    precision, provider, options = VARIANTS[variant]
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            pairs = [f"{key}={value}" for key, value in {"hf_token": False, **options}.items()]
            extra = parse_extra_options("", checkpoint, out, precision, provider, cache, pairs)
            create_model("", checkpoint, out, precision, provider, cache, **extra)
    except (Exception, SystemExit) as error:  # whatever a model class raises
        raise Refused("builder: " + reason_of(error)) from error


# ---- References ---------------------------------------------------------------------------------


class Case:
    """A model, its session, and the sets written so far."""

    def __init__(self, folder, config, rng):
        self.folder, self.config, self.rng, self.n_sets = folder, config, rng, 0
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 2
        # DequantizeLinear and MatMul mean float arithmetic; it would round activations to int8.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        try:
            self.session = ort.InferenceSession(os.path.join(folder, "model.onnx"), options,
                                                providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class
            raise Refused("ONNX Runtime: " + reason_of(error)) from None
        self.inputs = self.session.get_inputs()
        self.outputs = [output.name for output in self.session.get_outputs()]

    def empty(self, batch):
        return {i.name: np.zeros(self.past_dims(i, batch), dtype_of(i)) for i in self.inputs
                if i.name.startswith("past")}

    def past_dims(self, info, batch):
        known = {"batch_size": batch, "past_sequence_length": 0,
                 "past_sliding_length": getattr(self.config, "sliding_window", None),
                 "kv_cache_dim": getattr(self.config, "head_dim", None)
                 or self.config.hidden_size // self.config.num_attention_heads}
        dims = [d if isinstance(d, int) else known.get(d) for d in info.shape]
        if None in dims:
            raise Refused(f"no rule for the dims of {info.name} {info.shape}")
        return dims

    def feed(self, batch, length, past_length, past):
        total = past_length + length
        ids = self.rng.integers(3, VOCABULARY, (batch, length))
        positions = np.tile(np.arange(past_length, total), (batch, 1))
        feed = {}
        for info in self.inputs:
            if info.name in past:
                value = past[info.name]
            elif info.name == "input_ids":
                value = ids
            elif info.name == "inputs_embeds":
                value = self.rng.standard_normal((batch, length, self.config.hidden_size))
            elif info.name == "attention_mask":
                value = np.ones((batch, total))
            elif info.name == "position_ids":
                value = np.tile(positions, (3, 1, 1)) if len(info.shape) == 3 else positions
            else:
                raise Refused(f"no rule for input {info.name}")
            feed[info.name] = np.ascontiguousarray(value.astype(dtype_of(info)))
        return feed

    def run(self, batch, length, past_length=0, past=None):
        """Computes and writes a set; returns the states after it."""
        feed = self.feed(batch, length, past_length, past or self.empty(batch))
        try:
            result = dict(zip(self.outputs, self.session.run(None, feed)))
        except Exception as error:
            raise Refused("ONNX Runtime: " + reason_of(error)) from None
        states = {}
        for name in feed:
            if name.startswith("past"):
                states[name] = result["present." + re.sub(r"^past(_key_values)?\.", "", name)]
                if feed[name].ndim == 4 and states[name].shape == feed[name].shape:
                    states[name][:, :, past_length + length:] = 0  # ONNX Runtime leaves garbage
        for name, value in result.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise Refused(f"output {name} is not finite")
        folder = os.path.join(self.folder, f"test_data_set_{self.n_sets}")
        os.makedirs(folder, exist_ok=True)
        write_tensors(folder, "input", feed)
        write_tensors(folder, "output", result)
        self.n_sets += 1
        return states

    def run_all(self):
        past = self.run(1, 7)
        past = self.run(1, 1, 7, past)
        self.run(2, 5)
        self.run(1, 4, 8, past)


def dtype_of(info):
    return {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
            "tensor(int32)": np.int32, "tensor(int8)": np.int8,
            "tensor(uint8)": np.uint8}[info.type]


def write_tensors(folder, kind, tensors):
    for i, (name, value) in enumerate(tensors.items()):
        with open(os.path.join(folder, f"{kind}_{i}.pb"), "wb") as f:
            f.write(numpy_helper.from_array(value, name).SerializeToString())


def without_accuracy_level(source, out):
    """A copy whose MatMulNBits has float activations, so that its reference has too."""
    shutil.copytree(source, out, ignore=shutil.ignore_patterns("test_data_set_*"))
    path = os.path.join(out, "model.onnx")
    model = onnx.load(path, load_external_data=False)
    changed = False
    for node in model.graph.node:
        for attribute in [a for a in node.attribute if a.name == "accuracy_level" and a.i]:
            node.attribute.remove(attribute)
            changed = True
    onnx.save(model, path)
    return changed


def make_case(out, checkpoint, name, variant, seed):
    folder = os.path.join(out, f"{name}.{variant}")
    shutil.rmtree(folder, ignore_errors=True)
    config = transformers.AutoConfig.from_pretrained(checkpoint).get_text_config()
    done = []
    try:
        with tempfile.TemporaryDirectory() as cache:
            build(checkpoint, folder, variant, cache)
        for file in os.listdir(folder):
            if not file.startswith("model.onnx"):
                os.remove(os.path.join(folder, file))
        float_folder = folder + ".float"
        shutil.rmtree(float_folder, ignore_errors=True)
        folders = [folder, float_folder]
        if not without_accuracy_level(folder, float_folder):
            shutil.rmtree(folders.pop())
        for path in folders:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            Case(path, config, rng).run_all()
            done.append(os.path.basename(path))
    except Refused as reason:
        for path in (folder, folder + ".float"):
            if os.path.basename(path) not in done:
                shutil.rmtree(path, ignore_errors=True)
        print(f"{name}.{variant}: skipped: {reason}", flush=True)
    return len(done)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?")
    parser.add_argument("--arch", default="*", help="names of architectures, with * and ?")
    parser.add_argument("--variant", default="*", help="names of variants, with * and ?")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    args = parser.parse_args()
    if args.list or not args.out:
        print("architectures:", *ARCHITECTURES)
        print("variants:", *VARIANTS)
        return 0
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    n = 0
    for name in fnmatch.filter(ARCHITECTURES, args.arch):
        with tempfile.TemporaryDirectory() as checkpoint:
            try:
                write_checkpoint(name, checkpoint, args.seed)
            except Exception as error:  # a config that this version of transformers refuses
                print(f"{name}: skipped: {reason_of(error)}", flush=True)
                continue
            for variant in fnmatch.filter(VARIANTS, args.variant):
                n += make_case(args.out, checkpoint, name, variant, args.seed)
    print(f"{n} cases")
    return 0 if n else 1


if __name__ == "__main__":
    sys.exit(main())
