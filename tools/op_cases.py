#!/usr/bin/env python3
"""Writes small single-operator models with ONNX Runtime's outputs as ONNX test-data folders, the
form that `dibit check` reads:

    tools/op_cases.py tests/data/cases            # all of them
    tools/op_cases.py DIR causal_conv qmoe        # those whose names begin so
    tools/op_cases.py DIR --random 200 [SEED]     # so many MatMulNBits of any kind, then dibit check DIR

Needs numpy, onnx and onnxruntime. The same seed gives the same inputs; outputs are those of the
installed onnxruntime's CPU kernels. To add a case, add a line to CASES.
"""
import os
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

random = np.random.default_rng(1)


def uniform(*shape, low=-1.0, high=1.0):
    return random.uniform(low, high, shape).astype(np.float32)


def pack(codes, bits):
    """Codes along the last axis into bytes, low bits first, each row padded to a byte."""
    per = 8 // bits
    pad = -codes.shape[-1] % per
    codes = np.concatenate([codes, np.zeros(codes.shape[:-1] + (pad,), codes.dtype)], -1)
    codes = codes.reshape(codes.shape[:-1] + (-1, per)).astype(np.uint32)
    return sum(codes[..., i] << (bits * i) for i in range(per)).astype(np.uint8)


def quantized(experts, n, k, bits, block, zero_points):
    """Weight, scales and zero points (or None) of a QMoE projection; block 0: scales per row."""
    blocks = k // block if block else 1
    weight = pack(random.integers(0, 1 << bits, (experts, n, k)), bits)
    scales = uniform(experts, n, blocks, low=-0.1, high=0.1)
    zeros = random.integers(0, 1 << bits, (experts, n, blocks)) if zero_points else None
    if not block:
        scales = scales[..., 0]
        zeros = None if zeros is None else zeros[..., 0]
    return weight, scales, None if zeros is None else pack(zeros, bits)


def qmoe(bits, block, zero_points, half=False, bias=True, **attrs):
    experts, hidden, inter, tokens = 3, 32, 32, 4
    swiglu = attrs.get("activation_type") == "swiglu"
    w1, s1, z1 = quantized(experts, inter * (2 if swiglu else 1), hidden, bits, block, zero_points)
    w2, s2, z2 = quantized(experts, hidden, inter, bits, block, zero_points)
    attrs = dict(attrs, k=2, expert_weight_bits=bits, **({"block_size": block} if block else {}))
    inputs = [uniform(tokens, hidden), uniform(tokens, experts, low=-3, high=3), w1, s1,
              uniform(experts, w1.shape[1]) if bias else None, w2, s2,
              uniform(experts, hidden) if bias else None, None, None, None, z1, z2]
    if half:
        inputs = [v.astype(np.float16) if v is not None and v.dtype == np.float32 else v
                  for v in inputs]
    return dict(op="QMoE", attrs=attrs, inputs=inputs, constants=range(2, 13))


def moe(activation, **attrs):
    experts, hidden, inter, tokens = 3, 16, 24, 5
    n = inter * (2 if activation == "swiglu" else 1)
    return dict(op="MoE", attrs=dict(attrs, activation_type=activation), constants=range(2, 8),
                inputs=[uniform(1, tokens, hidden), uniform(tokens, experts, low=-3, high=3),
                        uniform(experts, n, hidden), uniform(experts, n),
                        uniform(experts, hidden, inter), uniform(experts, hidden)])


def causal_conv(length, taps, past, last=False, **attrs):
    channels, state = 6, (taps - 1) * attrs.get("dilation", 1)
    x = (2, length, 2, 3) if last else (2, channels, length)
    s = (2, state, 2, 3) if last else (2, channels, state)
    return dict(op="CausalConvWithState", attrs=dict(attrs, channels_last=int(last)), outputs=2,
                constants=[1, 2],
                inputs=[uniform(*x), uniform(channels, 1, taps), uniform(channels),
                        uniform(*s) if past else None])


def rotary_caches(positions, half):
    angles = np.arange(positions)[:, None] / 100.0 ** (np.arange(half) / half)[None]
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def gqa(tokens, past, lengths, heads=4, kv_heads=2, dim=16, half=None, capacity=None, packed=False,
        bias=None, sink=False, ids=None, float16=False, outputs=3, **attrs):
    """GroupQueryAttention over `tokens` new tokens; lengths: of the rows, with the new tokens."""
    batch, total = len(lengths), past + tokens
    held = capacity or past
    q, k, v = (uniform(batch, tokens, n * dim, low=-2, high=2) for n in (heads, kv_heads, kv_heads))
    cos, sin = rotary_caches(32, half or dim // 2) if attrs.get("do_rotary") else (None, None)
    inputs = [np.concatenate([q, k, v], 2) if packed else q, None if packed else k,
              None if packed else v, uniform(batch, kv_heads, held, dim),
              uniform(batch, kv_heads, held, dim), np.array(lengths, np.int32) - 1,
              np.array([total], np.int32), cos, sin,
              None if ids is None else np.array(ids, np.int64),
              None if bias is None else uniform(*bias, tokens, total),
              uniform(heads) if sink else None]
    if float16:
        inputs = [v.astype(np.float16) if v is not None and v.dtype == np.float32 else v
                  for v in inputs]
    while inputs[-1] is None:
        inputs.pop()
    return dict(op="GroupQueryAttention", inputs=inputs, outputs=outputs,
                attrs=dict(attrs, num_heads=heads, kv_num_heads=kv_heads))


def mha(past=0, mask=None, bias=False, term=None, heads=2, dim=8, tokens=4, keys=4, four=False,
        outputs=1, **attrs):
    shape = (2, heads, keys, dim) if four else (2, keys, heads * dim)
    cache = uniform(2, heads, past, dim) if past else None
    return dict(op="MultiHeadAttention", attrs=dict(attrs, num_heads=heads), outputs=outputs, inputs=[
        uniform(2, tokens, heads * dim), uniform(*shape), uniform(*shape),
        uniform(3 * heads * dim) if bias else None,
        None if mask is None else np.array(mask, np.int32),
        None if term is None else uniform(*term, tokens, past + keys), cache,
        None if cache is None else uniform(*cache.shape)])


def attention(mask=None, past=0, term=None, heads=2, dim=8, tokens=4, outputs=1, **attrs):
    width = 3 * heads * dim
    return dict(op="Attention", attrs=dict(attrs, num_heads=heads), outputs=outputs, constants=[1, 2],
                inputs=[uniform(2, tokens, 12), uniform(12, width), uniform(width),
                        None if mask is None else np.array(mask, np.int32),
                        uniform(2, 2, heads, past, dim) if past else None,
                        None if term is None else uniform(*term, tokens, past + tokens)])


def linear_attention(rule, length, past):
    heads, d_k, d_v = 2, 6, 8
    vector = (2, length, heads)
    return dict(op="LinearAttention", outputs=2,
                attrs=dict(q_num_heads=heads, kv_num_heads=heads, update_rule=rule),
                inputs=[uniform(2, length, heads * d_k), uniform(2, length, heads * d_k, low=-0.5, high=0.5),
                        uniform(2, length, heads * d_v), uniform(2, heads, d_k, d_v) if past else None,
                        uniform(*vector, high=0.0), uniform(*vector, low=0.0)])


SWIGLU = dict(activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.702,
              activation_beta=1.0, swiglu_limit=7.0)
NORM = dict(epsilon=1e-5)

# name: what make() takes. Cases are made in this order, from one random stream.
def nbits(bits, block, m, n, k, zero_points=None, level=0, bias=False, half=False):
    """MatMulNBits; zero_points: None, "packed" or "float"."""
    blocks = -(-k // block)
    codes = random.integers(0, 1 << bits, (n, blocks * block))
    inputs = [uniform(2, m, k), pack(codes, bits).reshape(n, blocks, -1), uniform(n, blocks),
              None, None, uniform(n) if bias else None]
    if zero_points:
        zeros = random.integers(0, 1 << bits, (n, blocks))
        inputs[3] = pack(zeros, bits) if zero_points == "packed" else (zeros + 0.25).astype(np.float32)
    if half:
        inputs = [v.astype(np.float16) if v is not None and v.dtype == np.float32 else v
                  for v in inputs]
    attrs = {"K": k, "N": n, "bits": bits, "block_size": block}
    if level:
        attrs["accuracy_level"] = level
    while inputs[-1] is None:
        inputs.pop()
    return dict(op="MatMulNBits", attrs=attrs, inputs=inputs, constants=range(1, 6))


def gather_quantized(bits, block, zero_points):
    data, scales, zeros = quantized(1, 12, 4 * block, bits, block, zero_points)
    inputs = [data[0], np.array([[3, -1, 0], [11, 5, 2]], np.int64), scales[0]]
    return dict(op="GatherBlockQuantized", constants=[0, 2, 3],
                inputs=inputs + ([zeros[0]] if zero_points else []),
                attrs={"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1})


CASES = {
    "causal_conv_prefill": lambda: causal_conv(7, 3, False),
    "causal_conv_step": lambda: causal_conv(1, 4, True, activation="silu"),
    "causal_conv_last_dilated": lambda: causal_conv(5, 3, True, last=True, dilation=2),
    "embed_norm": lambda: dict(
        op="EmbedLayerNormalization", outputs=3, constants=range(2, 7),
        inputs=[np.array([[1, 2, 7], [3, 0, 4]], np.int32), np.array([[0, 1, 1], [1, 0, 0]], np.int32),
                uniform(8, 16), uniform(4, 16), uniform(2, 16), uniform(16), uniform(16),
                np.array([[1, 1, 0], [1, 1, 1]], np.int32)]),
    "layer_norm": lambda: dict(
        op="LayerNormalization", domain="", opset=17, outputs=3, constants=[1, 2],
        inputs=[uniform(2, 3, 20, low=1, high=3), uniform(20), uniform(20)]),
    "moe_silu_normalized": lambda: moe("silu", k=2, normalize_routing_weights=1),
    "moe_swiglu": lambda: moe("swiglu", k=2, **{k: v for k, v in SWIGLU.items()
                                                if k != "activation_type"}),
    "qmoe_2bit_block16_zp": lambda: qmoe(2, 16, True, **SWIGLU),
    "qmoe_4bit_block16": lambda: qmoe(4, 16, False, **SWIGLU),
    "qmoe_4bit_block16_acc4": lambda: qmoe(4, 16, True, accuracy_level=4, **SWIGLU),
    "qmoe_4bit_rows_zp_half": lambda: qmoe(4, 0, True, half=True, activation_type="gelu"),
    "qmoe_8bit_block32": lambda: qmoe(8, 32, False, bias=False, activation_type="silu"),
    "skip_layer_norm": lambda: dict(
        op="SkipLayerNormalization", attrs=NORM, outputs=4, absent=[1, 2], constants=[2, 3, 4],
        inputs=[uniform(2, 3, 20), uniform(3, 20), uniform(20), uniform(20), uniform(20)]),
    "skip_simplified_norm": lambda: dict(
        op="SkipSimplifiedLayerNormalization", attrs=NORM, outputs=4, absent=[1, 2],
        constants=[2, 3],
        inputs=[uniform(2, 3, 20), uniform(2, 3, 20), uniform(20), uniform(20)]),
    "gqa_ragged_prompt": lambda: gqa(6, 0, [6, 3], do_rotary=1),
    "gqa_ragged_window": lambda: gqa(9, 0, [9, 4, 1], local_window_size=3),
    "gqa_ragged_window_half": lambda: gqa(9, 0, [9, 4, 1], local_window_size=3, float16=True),
    "gqa_ragged_step": lambda: gqa(1, 6, [7, 4], do_rotary=1, packed=True),
    "gqa_chunk_into_buffer": lambda: gqa(3, 6, [9], do_rotary=1, rotary_interleaved=1, capacity=12),
    "gqa_partial_rotary_ids": lambda: gqa(1, 6, [7, 7], dim=32, half=8, do_rotary=1, ids=[[3], [9]]),
    "gqa_window_softcap": lambda: gqa(9, 0, [9, 9], local_window_size=3, softcap=1.5, scale=0.4),
    "gqa_sink_bias": lambda: gqa(1, 5, [6, 3], bias=(2, 1), sink=True),
    "gqa_smooth_bidirectional": lambda: gqa(5, 0, [5, 5], smooth_softmax=1, causal=0, bias=(1, 4)),
    "gqa_scores": lambda: gqa(5, 0, [5], qk_output=1, outputs=4, do_rotary=1, softcap=2.0),
    "gqa_half": lambda: gqa(4, 3, [7], do_rotary=1, float16=True),
    "gqa_window_cache_step": lambda: gqa(1, 12, [13, 8], capacity=4, local_window_size=4,
                                         sliding_window_cache=1, do_rotary=1),
    "gqa_window_cache_chunk": lambda: gqa(7, 5, [12], capacity=4, local_window_size=4,
                                          sliding_window_cache=1, do_rotary=1),
    "gqa_window_cache_slack": lambda: gqa(5, 7, [12], capacity=6, local_window_size=4,
                                          sliding_window_cache=1),
    "mha_bias_lengths": lambda: mha(bias=True, mask=[3, 2]),
    "mha_past_mask": lambda: mha(past=3, mask=[[1, 0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 1]],
                                 outputs=3, unidirectional=1, mask_filter_value=-3.0),
    "mha_cross_bias": lambda: mha(keys=6, tokens=3, term=(1, 2), scale=0.3),
    "mha_encoder_keys": lambda: mha(keys=5, four=True, bias=True),
    "attention_ends_and_starts": lambda: attention(mask=[3, 4, 1, 2]),
    "attention_past_causal": lambda: attention(past=3, outputs=2, unidirectional=1,
                                               mask=np.arange(14).reshape(2, 7) % 3),
    "linear_attention_prefill": lambda: linear_attention("gated", 5, False),
    "linear_attention_step": lambda: linear_attention("gated_delta", 1, True),
    "nbits_2bit_block16_zp": lambda: nbits(2, 16, 1, 24, 80, "packed"),
    "nbits_2bit_block32_zp_acc4": lambda: nbits(2, 32, 2, 33, 160, "packed", 4, bias=True),
    "nbits_2bit_block64_acc4": lambda: nbits(2, 64, 1, 32, 256, None, 4),
    "nbits_4bit_block32_zp_half": lambda: nbits(4, 32, 3, 20, 96, "packed", half=True),
    "nbits_4bit_block128_acc4": lambda: nbits(4, 128, 2, 24, 256, None, 4),
    "nbits_4bit_float_zp": lambda: nbits(4, 32, 2, 16, 64, "float", 4),
    "nbits_8bit_block16_zp_acc4": lambda: nbits(8, 16, 2, 17, 96, "packed", 4),
    "gather_quantized_2bit_zp": lambda: gather_quantized(2, 16, True),
    "gather_quantized_8bit": lambda: gather_quantized(8, 32, False),
    "dequantize_blocks": lambda: dict(
        op="DequantizeLinear", domain="", attrs={"axis": 1, "block_size": 8}, constants=[0, 1, 2],
        inputs=[random.integers(-128, 128, (3, 20)).astype(np.int8), uniform(3, 3),
                random.integers(-9, 9, (3, 3)).astype(np.int8)]),
    "quantize_axis": lambda: dict(
        op="QuantizeLinear", domain="", attrs={"axis": 1},
        inputs=[uniform(2, 5, 3, low=-9, high=9), uniform(5, low=0.01, high=0.1),
                random.integers(-9, 9, 5).astype(np.int8)]),
    "fused_matmul": lambda: dict(
        op="FusedMatMul", attrs={"transA": 1, "transB": 1, "alpha": 0.5},
        inputs=[uniform(2, 7, 3), uniform(2, 5, 7)]),
}


def make_model(op, inputs, attrs=None, domain="com.microsoft", opset=21, outputs=1, absent=(),
               constants=()):
    """One node; inputs in `constants` are initializers, the others have symbolic dims."""
    names = ["" if v is None else f"in{i}" for i, v in enumerate(inputs)]
    out_names = ["" if i in absent else f"out{i}" for i in range(outputs)]
    node = helper.make_node(op, names, out_names, name=op, domain=domain, **(attrs or {}))
    infos, initializers = [], []
    for i, v in enumerate(inputs):
        if v is None:
            continue
        if i in constants:
            initializers.append(numpy_helper.from_array(v, names[i]))
            continue
        dims = [f"{names[i]}_{d}" for d in range(v.ndim)]
        infos.append(helper.make_tensor_value_info(
            names[i], helper.np_dtype_to_tensor_dtype(v.dtype), dims))
    graph = helper.make_graph([node], op, infos,
                              [onnx.ValueInfoProto(name=n) for n in out_names if n], initializers)
    return helper.make_model(graph, ir_version=10, producer_name="op_cases.py", opset_imports=[
        helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)])


def write_case(folder, case):
    model = make_model(**case)
    feeds = {f"in{i}": v for i, v in enumerate(case["inputs"])
             if v is not None and i not in case.get("constants", ())}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    results = session.run(None, feeds)
    types = {o.name: o.type for o in session.get_outputs()}
    for value in model.graph.output:  # now that types and ranks are known
        result = results[list(types).index(value.name)]
        value.CopyFrom(helper.make_tensor_value_info(
            value.name, helper.np_dtype_to_tensor_dtype(result.dtype),
            [f"{value.name}_{d}" for d in range(result.ndim)]))
    data = os.path.join(folder, "test_data_set_0")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(data)
    onnx.save(model, os.path.join(folder, "model.onnx"))
    for kind, tensors in (("input", feeds.items()), ("output", zip(types, results))):
        for i, (name, value) in enumerate(tensors):
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as file:
                file.write(numpy_helper.from_array(value, name).SerializeToString())


def draw_nbits():
    bits = int(random.choice([2, 4, 8]))
    kinds = [None, "packed"] + (["float"] if bits == 4 else [])  # elsewhere it refuses float ones
    level = int(random.choice([0, 4]))
    return dict(bits=bits, block=16 << int(random.integers(0, 5)), m=int(random.choice([1, 2, 3, 7, 20])),
                n=int(random.integers(1, 70)), k=int(random.integers(1, 40)) * 16,
                zero_points=kinds[int(random.integers(0, len(kinds)))], level=level,
                bias=bool(random.integers(0, 2)), half=bool(level == 0 and random.integers(0, 4) == 0))


def write_random(folder, n, seed):
    global random
    random = np.random.default_rng(seed)
    for i in range(n):
        drawn = draw_nbits()
        name = "_".join(f"{key}{value}" for key, value in drawn.items())
        try:
            write_case(os.path.join(folder, f"{i:04}_{name}"), nbits(**drawn))
        except Exception as error:  # a node that ONNX Runtime itself refuses
            print(f"ONNX Runtime refuses {name}: {str(error)[:120]}")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    if "--random" in sys.argv:
        n, seed = [*map(int, sys.argv[3:]), 1][:2]
        write_random(sys.argv[1], n, seed)
        return
    for name, make in CASES.items():
        case = make()
        if len(sys.argv) == 2 or name.startswith(tuple(sys.argv[2:])):
            write_case(os.path.join(sys.argv[1], name), case)


if __name__ == "__main__":
    main()
