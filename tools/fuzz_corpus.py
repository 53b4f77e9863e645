#!/usr/bin/env python3
"""Writes the seed corpus of the fuzzers: tests/fuzz/corpus/onnx (small models: one of ONNX's own node
tests for every operator that src/ops names, models of contrib operators, of If and of functions) and
tests/fuzz/corpus/tensor_file. Needs the packages onnx and numpy. usage: tools/fuzz_corpus.py"""
import io
import pathlib
import re

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "tests/fuzz/corpus/onnx"
TENSORS = ROOT / "tests/fuzz/corpus/tensor_file"
MS = "com.microsoft"
rng = np.random.default_rng(1)


def put(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def model(name, nodes, inputs, outputs, initializers=(), functions=(), opset=21, ir=10):
    graph = h.make_graph(nodes, "g", inputs, outputs, initializers)
    imports = [h.make_opsetid("", opset), h.make_opsetid(MS, 1)]
    if functions:
        imports.append(h.make_opsetid("local", 1))
    m = h.make_model(graph, opset_imports=imports, functions=functions, ir_version=ir)
    put(MODELS, name + ".onnx", m.SerializeToString())


def vi(name, dims, type=T.FLOAT):
    return h.make_tensor_value_info(name, type, dims)


def const(name, array):
    return numpy_helper.from_array(array, name)


def node_tests():
    """The smallest of ONNX's node tests for each operator."""
    from onnx.backend.test.case.node import collect_testcases

    named = set()
    for path in (ROOT / "src/ops").rglob("*.[ch]"):
        named |= set(re.findall(r'"([A-Z]\w+)"', path.read_text()))
    smallest = {}
    for case in collect_testcases(None):
        data = case.model.SerializeToString()
        ops = {n.op_type for n in case.model.graph.node}
        if len(ops) != 1:
            continue
        op = ops.pop()
        if op in named and len(data) < 1500 and len(data) < len(smallest.get(op, b"x" * 1500)):
            smallest[op] = data
    for op, data in smallest.items():
        put(MODELS, "node_" + op + ".onnx", data)


def contrib():
    n, k, block = 8, 32, 16
    for bits in (2, 4, 8):
        blob = block * bits // 8
        model(f"matmul_nbits_{bits}", [h.make_node(
            "MatMulNBits", ["a", "b", "s", "z"], ["y"], name="mm", domain=MS, K=k, N=n, bits=bits,
            block_size=block, accuracy_level=4)], [vi("a", ["m", k])], [vi("y", ["m", n])], [
                const("b", rng.integers(0, 256, (n, k // block, blob), dtype=np.uint8)),
                const("s", rng.random((n, k // block), dtype=np.float32)),
                const("z", rng.integers(0, 256, (n, -(-k // block * bits // 8)), dtype=np.uint8))])
    model("gather_block_quantized", [h.make_node(
        "GatherBlockQuantized", ["d", "i", "s"], ["y"], domain=MS, bits=4, block_size=16,
        gather_axis=0, quantize_axis=1)], [vi("i", ["n"], T.INT64)], [vi("y", ["n", 32])], [
            const("d", rng.integers(0, 256, (4, 16), dtype=np.uint8)),
            const("s", rng.random((4, 2), dtype=np.float32))])
    kv = ["b", 1, "p", 8]
    model("group_query_attention", [h.make_node(
        "GroupQueryAttention", ["q", "k", "v", "pk", "pv", "seqlens", "total", "cos", "sin"],
        ["y", "nk", "nv"], domain=MS, num_heads=2, kv_num_heads=1, do_rotary=1, local_window_size=4)],
        [vi("q", ["b", "s", 16]), vi("k", ["b", "s", 8]), vi("v", ["b", "s", 8]), vi("pk", kv),
         vi("pv", kv), vi("seqlens", ["b"], T.INT32), vi("total", [], T.INT32)],
        [vi("y", ["b", "s", 16]), vi("nk", ["b", 1, "t", 8]), vi("nv", ["b", 1, "t", 8])],
        [const("cos", rng.random((16, 4), dtype=np.float32)),
         const("sin", rng.random((16, 4), dtype=np.float32))])
    model("skip_norm", [h.make_node("SkipSimplifiedLayerNormalization", ["x", "r", "g"],
                                    ["y", "", "", "sum"], domain=MS, epsilon=1e-5)],
          [vi("x", ["b", "s", 8]), vi("r", ["b", "s", 8])],
          [vi("y", ["b", "s", 8]), vi("sum", ["b", "s", 8])], [const("g", np.ones(8, np.float32))])
    model("causal_conv", [h.make_node("CausalConvWithState", ["x", "w", "b", "past"],
                                      ["y", "present"], domain=MS, activation="silu")],
          [vi("x", ["b", 4, "s"]), vi("past", ["b", 4, 2])],
          [vi("y", ["b", 4, "s"]), vi("present", ["b", 4, 2])],
          [const("w", rng.random((4, 1, 3), dtype=np.float32)), const("b", np.ones(4, np.float32))])
    model("qmoe", [h.make_node("QMoE", ["x", "r", "w1", "s1", "", "w2", "s2"], ["y"], domain=MS, k=1,
                               expert_weight_bits=4, activation_type="silu")],
          [vi("x", ["t", 16]), vi("r", ["t", 2])], [vi("y", ["t", 16])], [
              const("w1", rng.integers(0, 256, (2, 8, 8), dtype=np.uint8)),
              const("s1", rng.random((2, 8), dtype=np.float32)),
              const("w2", rng.integers(0, 256, (2, 16, 4), dtype=np.uint8)),
              const("s2", rng.random((2, 16), dtype=np.float32))])
    model("multi_head_attention", [h.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"],
                                               domain=MS, num_heads=2)],
          [vi("q", ["b", "s", 8]), vi("k", ["b", "t", 8]), vi("v", ["b", "t", 8])],
          [vi("y", ["b", "s", 8])])
    model("rotary", [h.make_node("RotaryEmbedding", ["x", "p", "cos", "sin"], ["y"], domain=MS,
                                 num_heads=2)],
          [vi("x", ["b", "s", 16]), vi("p", ["b", "s"], T.INT64)], [vi("y", ["b", "s", 16])],
          [const("cos", rng.random((16, 4), dtype=np.float32)),
           const("sin", rng.random((16, 4), dtype=np.float32))])


def structure():
    def branch(name, value):
        return h.make_graph([h.make_node("Constant", [], [name], value=const("", value))], name, [],
                            [vi(name, [2])])

    two = np.array([1, 2], np.float32)
    model("if", [h.make_node("If", ["c"], ["y"], then_branch=branch("a", two),
                             else_branch=branch("b", -two))], [vi("c", [], T.BOOL)], [vi("y", [2])])
    f = h.make_function(
        "local", "Twice", ["x"], ["y"],
        [h.make_node("Constant", [], ["k"], value_float=2.0), h.make_node("Mul", ["x", "k"], ["m"]),
         h.make_node("LeakyRelu", ["m"], ["y"])], [h.make_opsetid("", 21)], ["alpha"])
    reference = f.node[2].attribute.add()
    reference.name = reference.ref_attr_name = "alpha"
    reference.type = onnx.AttributeProto.FLOAT
    model("function", [h.make_node("Twice", ["x"], ["y"], domain="local", alpha=0.5)],
          [vi("x", ["n"])], [vi("y", ["n"])], functions=[f])
    model("shapes", [
        h.make_node("Shape", ["x"], ["s"]), h.make_node("Gather", ["s", "i"], ["d"], axis=0),
        h.make_node("Unsqueeze", ["d", "z"], ["u"]), h.make_node("Concat", ["u", "m1"], ["t"], axis=0),
        h.make_node("Reshape", ["x", "t"], ["y"])], [vi("x", ["b", "s", 4])], [vi("y", None)], [
            const("i", np.array(1, np.int64)), const("z", np.array([0], np.int64)),
            const("m1", np.array([-1], np.int64))])
    typed = []
    for t, values in ((T.FLOAT16, [1.0, -2.0]), (T.BFLOAT16, [1.0, 2.0]), (T.INT4, [1, -2]),
                      (T.UINT4, [1, 15]), (T.BOOL, [True, False]), (T.UINT64, [1, 2**63]),
                      (T.DOUBLE, [1.0, 2.0]), (T.STRING, [b"a", b"bc"]), (T.FLOAT8E4M3FN, [1.0, 2.0])):
        typed.append(h.make_tensor(f"t{t}", t, [2], values))
    outside = T(name="w", data_type=T.FLOAT, dims=[4], data_location=T.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", "16"), ("length", "16")):
        entry = outside.external_data.add()
        entry.key, entry.value = key, value
    model("typed", [h.make_node("Add", ["x", "w"], ["y"])], [vi("x", ["n", 4])],
          [vi("y", ["n", 4])], typed + [outside], ir=13)


def tensors():
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name, array in (("c", a), ("fortran", np.asfortranarray(a)), ("big", a.astype(">i2")),
                        ("scalar", np.array(True)), ("empty", a[:, :0])):
        out = io.BytesIO()
        np.save(out, array)
        put(TENSORS, name + ".npy", out.getvalue())
    for name, save in (("stored", np.savez), ("deflated", np.savez_compressed)):
        out = io.BytesIO()
        save(out, a=a, b=np.arange(3))
        put(TENSORS, name + ".npz", out.getvalue())
    for name, t in (("raw", const("x", a)), ("int64", h.make_tensor("i", T.INT64, [3], [1, -2, 300])),
                    ("float16", h.make_tensor("h", T.FLOAT16, [2], [1.0, 2.0])),
                    ("int4", h.make_tensor("q", T.INT4, [3], [1, -2, 3])),
                    ("complex", h.make_tensor("c", T.COMPLEX64, [1], [1 + 2j])),
                    ("string", h.make_tensor("s", T.STRING, [1], [b"text"]))):
        put(TENSORS, name + ".pb", t.SerializeToString())


node_tests()
contrib()
structure()
tensors()
