"""Models with random weights for benchmarks, written where they are asked for unless they lie there already:
chains of MatMulNBits, and language models of Llama's architecture as ONNX and as GGUF. Speed does not depend
on what the weights are, as long as no number in between gets infinite.
"""
import json
import os
import shutil
from collections import namedtuple

import numpy as np
import onnx
from onnx import TensorProto, helper

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHIPPED = f"{ROOT}/models/smollm2-135m-instruct-2bit"

Shape = namedtuple("Shape", "layers hidden ffn heads kv_heads head_dim vocabulary positions")
SHAPES = {
    "135M": Shape(30, 576, 1536, 9, 3, 64, 49152, 8192),  # the shipped model's
    "1.3B": Shape(22, 2048, 7168, 32, 8, 64, 49152, 8192),  # ten times that
    "3.7B": Shape(32, 3072, 9216, 24, 8, 128, 49152, 8192),
}


class File:
    """An ONNX model whose weights are a stream of random bytes in one external file."""

    def __init__(self, folder):
        self.folder, self.tensors, self.offset = folder, [], 0
        os.makedirs(folder, exist_ok=True)
        self.data = open(f"{folder}/model.onnx.data", "wb")
        self.random = np.random.default_rng(1)
        self.noise = self.random.integers(0, 256, 1 << 24, np.uint8)

    def add(self, name, kind, dims, content):
        t = self.tensors
        t.append(TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL))
        for key, value in (("location", "model.onnx.data"), ("offset", self.offset), ("length", len(content))):
            t[-1].external_data.add(key=key, value=str(value))
        self.data.write(content)
        padding = -len(content) % 64
        self.data.write(bytes(padding))
        self.offset += len(content) + padding
        return name

    def bytes(self, n):
        """No two tensors are the same: ONNX Runtime keeps equal ones once, and then reads them from a cache."""
        return np.resize(np.roll(self.noise, self.random.integers(self.noise.size)), n)

    def codes(self, name, dims):
        return self.add(name, TensorProto.UINT8, dims, self.bytes(int(np.prod(dims))).tobytes())

    def floats(self, name, dims, size, half):
        values = size * (self.bytes(int(np.prod(dims))).astype(np.float32) / 256 + 0.5)
        return self.add(name, TensorProto.FLOAT16 if half else TensorProto.FLOAT, dims,
                        values.astype(np.float16 if half else np.float32).tobytes())

    def nbits_inputs(self, name, n, k, bits, block, zero_points, half):
        """B, scales and zero points ("packed", "float" or None), of a size that keeps products in range."""
        blocks = -(-k // block)
        top = 2 ** bits - 1
        inputs = [self.codes(f"{name}.b", [n, blocks, block * bits // 8]),
                  self.floats(f"{name}.s", [n, blocks], (k * top * (top + 2) / 6) ** -0.5, half)]
        if zero_points == "packed":
            inputs.append(self.codes(f"{name}.z", [n, -(-blocks * bits // 8)]))
        elif zero_points == "float":
            inputs.append(self.floats(f"{name}.z", [n, blocks], top / 2, half))
        return inputs

    def nbits(self, name, x, y, n, k, bits, block, zero_points="packed", half=False, level=4, g_idx=False):
        inputs = self.nbits_inputs(name, n, k, bits, block, zero_points, half)
        if g_idx:
            inputs += [""] * (3 - len(inputs))
            inputs.append(self.add(f"{name}.g", TensorProto.INT32, [k], (np.arange(k) // block).astype(np.int32).tobytes()))
        return helper.make_node("MatMulNBits", [x, *inputs], [y], name, domain="com.microsoft", K=k, N=n, bits=bits,
                                block_size=block, accuracy_level=level)

    def save(self, nodes, inputs, outputs):
        self.data.close()
        graph = helper.make_graph(nodes, "benchmark", inputs, outputs, self.tensors)
        model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
        onnx.save(model, f"{self.folder}/model.onnx")


def once(write):
    """A decorator: the folder of what `write` writes into it; nothing is written twice."""
    def wrapped(folder, *args, **kwargs):
        done = f"{folder}/complete"
        if not os.path.exists(done):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            write(folder, *args, **kwargs)
            open(done, "w").close()
        return folder
    return wrapped


@once
def chain(folder, size, layers, **nbits):
    file = File(folder)
    nodes = [file.nbits(f"layer{i}", f"x{i}", f"x{i + 1}", size, size, **nbits) for i in range(layers)]
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
    file.save(nodes, [value("x0")], [value(f"x{layers}")])


def rotary(file, shape, half):
    """cos and sin of position times frequency."""
    frequency = 1e5 ** (-np.arange(0, shape.head_dim, 2) / shape.head_dim)
    angle = np.outer(np.arange(shape.positions), frequency)
    kind, real = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    return [file.add(name, kind, angle.shape, f(angle).astype(real).tobytes()) for name, f in (("cos", np.cos), ("sin", np.sin))]


@once
def llama(folder, name, bits, head_bits, half):
    """Block 32, packed zero points, accuracy_level 4; embedding and head are one tensor of head_bits."""
    shape, file = SHAPES[name], File(folder)
    real = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes, inputs, outputs = [], [], []
    node = lambda op, ins, outs, domain="", **at: nodes.append(helper.make_node(op, ins, outs, domain=domain, **at))
    constant = lambda out, value: node("Constant", [], [out], value=onnx.numpy_helper.from_array(np.array(value, np.int64), out))
    value = lambda to, name, kind, dims: to.append(helper.make_tensor_value_info(name, kind, dims))
    product = lambda label, x, n, k, b=bits: nodes.append(file.nbits(label, x, f"{label}.y", n, k, b, 32, half=half)) or f"{label}.y"
    norm = lambda label: file.floats(f"{label}.weight", [shape.hidden], 1.0, half)

    value(inputs, "input_ids", TensorProto.INT64, ["batch", "sequence"])
    value(inputs, "attention_mask", TensorProto.INT64, ["batch", "total"])
    constant("axis", [1])
    constant("one", 1)
    constant("flat", [shape.vocabulary, shape.hidden * head_bits // 8])
    node("ReduceSum", ["attention_mask", "axis"], ["mask_sum"], keepdims=0)
    node("Sub", ["mask_sum", "axis"], ["last"])
    node("Cast", ["last"], ["seqlens_k"], to=TensorProto.INT32)
    node("Shape", ["attention_mask"], ["mask_shape"])
    node("Gather", ["mask_shape", "one"], ["total_length"], axis=0)
    node("Cast", ["total_length"], ["total"], to=TensorProto.INT32)
    caches = rotary(file, shape, half)
    head = file.nbits_inputs("head", shape.vocabulary, shape.hidden, head_bits, 32, "packed", half)
    node("Reshape", [head[0], "flat"], ["table"])
    node("GatherBlockQuantized", ["table", "input_ids", *head[1:]], ["residual"], "com.microsoft", bits=head_bits, block_size=32,
         gather_axis=0, quantize_axis=1)
    node("SimplifiedLayerNormalization", ["residual", norm("norm0")], ["x0"], axis=-1, epsilon=1e-5, stash_type=1)
    residual = "residual"
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    for i in range(shape.layers):
        past, present = ([f"{way}.{i}.{what}" for what in ("key", "value")] for way in ("past_key_values", "present"))
        for a, b in zip(past, present):
            value(inputs, a, real, ["batch", shape.kv_heads, "past", shape.head_dim])
            value(outputs, b, real, ["batch", shape.kv_heads, "total", shape.head_dim])
        qkv = product(f"qkv{i}", f"x{i}", q + 2 * kv, shape.hidden)
        node("GroupQueryAttention", [qkv, "", "", *past, "seqlens_k", "total", *caches], [f"attention{i}", *present], "com.microsoft",
             num_heads=shape.heads, kv_num_heads=shape.kv_heads, do_rotary=1, scale=shape.head_dim ** -0.5)
        out = product(f"out{i}", f"attention{i}", shape.hidden, q)
        node("SkipSimplifiedLayerNormalization", [residual, out, norm(f"middle{i}")], [f"m{i}", "", "", f"r{i}"], "com.microsoft", epsilon=1e-5)
        gate, up = (product(f"{what}{i}", f"m{i}", shape.ffn, shape.hidden) for what in ("gate", "up"))
        node("Sigmoid", [gate], [f"sigmoid{i}"])
        node("Mul", [gate, f"sigmoid{i}"], [f"silu{i}"])
        node("Mul", [f"silu{i}", up], [f"mlp{i}"])
        down = product(f"down{i}", f"mlp{i}", shape.hidden, shape.ffn)
        last = i + 1 == shape.layers
        residual = f"s{i}"
        node("SkipSimplifiedLayerNormalization", [f"r{i}", down, norm(f"norm{i + 1}")],
             [f"x{i + 1}"] + ([] if last else ["", "", residual]), "com.microsoft", epsilon=1e-5)
    nodes.append(helper.make_node("MatMulNBits", [f"x{shape.layers}", *head], ["logits"], domain="com.microsoft", K=shape.hidden,
                                  N=shape.vocabulary, bits=head_bits, block_size=32, accuracy_level=4))
    value(outputs, "logits", real, ["batch", "sequence", shape.vocabulary])
    file.save(nodes, inputs, outputs)
    with open(f"{folder}/config.json", "w") as f:
        json.dump({"num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "vocab_size": shape.vocabulary}, f)


@once
def gguf(folder, name, kind, head_kind):
    """The same shape for llama.cpp; rows of 256-wide kinds need shapes that are multiples of 256."""
    import gguf as g
    shape = SHAPES[name]
    noise = np.random.default_rng(1).integers(0, 256, 1 << 24, np.uint8)
    w = g.GGUFWriter(f"{folder}/model.gguf", "llama")
    w.add_context_length(shape.positions)
    w.add_embedding_length(shape.hidden)
    w.add_block_count(shape.layers)
    w.add_feed_forward_length(shape.ffn)
    w.add_head_count(shape.heads)
    w.add_head_count_kv(shape.kv_heads)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(1e5)
    w.add_rope_dimension_count(shape.head_dim)
    w.add_vocab_size(shape.vocabulary)
    w.add_tokenizer_model("llama")
    bytes_of = [f"<0x{i:02X}>" for i in range(256)]
    words = ["<unk>", "<s>", "</s>", *bytes_of, *(f"t{i}" for i in range(shape.vocabulary - 259))]
    w.add_token_list(words)
    w.add_token_scores([0.0] * shape.vocabulary)
    w.add_token_types([2, 3, 3] + [6] * 256 + [1] * (shape.vocabulary - 259))

    def tensor(label, rows, columns, kind):
        type = g.GGMLQuantizationType[kind]
        block, size = g.GGML_QUANT_SIZES[type]
        data = np.resize(noise, rows * columns // block * size).reshape(rows, columns // block, size).copy()
        step = np.frombuffer(np.float16(1 / columns).tobytes(), np.uint8)
        for at in {"Q4_0": [0], "Q8_0": [0], "Q2_K": [80, 82], "TQ2_0": [64], "Q6_K": [208]}[kind]:  # the scales
            data[:, :, at:at + 2] = step
        w.add_tensor(label, data.reshape(rows, -1), raw_dtype=type)

    ones = np.ones(shape.hidden, np.float32)
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensor("token_embd.weight", shape.vocabulary, shape.hidden, head_kind)
    for i in range(shape.layers):
        for label, rows, columns in (("attn_q", q, shape.hidden), ("attn_k", kv, shape.hidden), ("attn_v", kv, shape.hidden),
                                     ("attn_output", shape.hidden, q), ("ffn_gate", shape.ffn, shape.hidden),
                                     ("ffn_up", shape.ffn, shape.hidden), ("ffn_down", shape.hidden, shape.ffn)):
            tensor(f"blk.{i}.{label}.weight", rows, columns, kind)
        w.add_tensor(f"blk.{i}.attn_norm.weight", ones)
        w.add_tensor(f"blk.{i}.ffn_norm.weight", ones)
    w.add_tensor("output_norm.weight", ones)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


@once
def float32_variant(folder):
    """Of the shipped model."""
    import subprocess
    import sys
    subprocess.run([sys.executable, f"{ROOT}/tools/recipe/float32_variant.py", SHIPPED, folder], check=True)
