"""Puts packed weights into an ONNX graph. usage: export_onnx.py CHECKPOINT TEMPLATE OUT [--float16]
TEMPLATE: the 4-bit block-32 model with zero points and shared embedding of onnxruntime-genai's builder."""
import sys

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from llama import FFN, LAYERS
from model_folder import save


def replacements(f):
    """Initializer name in the template -> (new name, array)."""
    out = {}

    def linear(name, b, s, z, bits):
        prefix = f"{name}.MatMul.weight"
        out[f"{prefix}_Q4G32"] = (f"{prefix}_Q{bits}G32", b)
        out[f"{prefix}_scale"] = (f"{prefix}_scale", s.astype(np.float32))
        out[f"{prefix}_zp"] = (f"{prefix}_zp", z)

    for i in range(LAYERS):
        p = f"model.layers.{i}."
        for short, name in (("qkv", "attn.qkv_proj"), ("o", "attn.o_proj"), ("down", "mlp.down_proj")):
            linear(p + name, *(f[f"{i}.{short}.{part}"] for part in "Bsz"), 2)
        for name, rows in (("gate_proj", slice(0, FFN)), ("up_proj", slice(FFN, None))):
            linear(p + "mlp." + name, *(f[f"{i}.gu.{part}"][rows] for part in "Bsz"), 2)
        for k, name in enumerate(("input_layernorm", "post_attention_layernorm")):
            out[p + name + ".weight"] = (p + name + ".weight", f["norms"][2 * i + k])
    last = f"model.layers.{LAYERS}.final_norm_layernorm.weight"
    out[last] = (last, f["norms"][2 * LAYERS])
    linear("lm_head", *(f[f"embedding.{part}"] for part in "Bsz"), 4)
    return out


def main():
    checkpoint, template, out = sys.argv[1:4]
    model = onnx.load(f"{template}/model.onnx")
    graph = model.graph
    new = replacements(np.load(f"{checkpoint}/weights.npz"))
    tensors = []
    for t in graph.initializer:
        name, array = new.pop(t.name) if t.name in new else (t.name, numpy_helper.to_array(t))
        if "--float16" in sys.argv and array.dtype == np.float32:
            array = array.astype(np.float16)
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    if new:
        sys.exit(f"the template has no {sorted(new)[0]}")
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    for node in graph.node:
        if node.op_type != "MatMulNBits":
            continue
        two_bits = node.input[1].endswith("_Q4G32") and not node.input[1].startswith("lm_head")
        if two_bits:
            node.input[1] = node.input[1].replace("_Q4G32", "_Q2G32")
        for a in node.attribute:
            if a.name == "accuracy_level":
                a.i = 4
            if a.name == "bits" and two_bits:
                a.i = 2
    if "--float16" in sys.argv:
        for v in [*graph.input, *graph.output, *graph.value_info]:
            if v.type.tensor_type.elem_type == TensorProto.FLOAT:
                v.type.tensor_type.elem_type = TensorProto.FLOAT16
    save(model, template, out)


if __name__ == "__main__":
    main()
