"""Writes a float16 model with float32 inputs, outputs, scales and caches. usage: float32_variant.py MODEL_DIR OUT
Every float16 value is kept exactly; only arithmetic changes."""
import sys

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from model_folder import save


def main():
    source, out = sys.argv[1:3]
    model = onnx.load(f"{source}/model.onnx")
    graph = model.graph
    for t in graph.initializer:
        if t.data_type == TensorProto.FLOAT16:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))
    for v in [*graph.input, *graph.output, *graph.value_info]:
        if v.type.tensor_type.elem_type == TensorProto.FLOAT16:
            v.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for a in node.attribute:
            if node.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT16:
                a.i = TensorProto.FLOAT
            if a.type == onnx.AttributeProto.TENSOR and a.t.data_type == TensorProto.FLOAT16:
                a.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(a.t).astype(np.float32), a.t.name))
    save(model, source, out)


if __name__ == "__main__":
    main()
