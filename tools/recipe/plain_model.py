"""What onnxruntime-web takes of a model with a quantized embedding. usage: plain_model.py MODEL_DIR OUT
MODEL_DIR is an output of float32_variant.py. In OUT the embedding is a float32 table with the values that
GatherBlockQuantized (4 bits, packed zero points) would give, and caches say how long a head is."""
import sys

import numpy as np
import onnx
from onnx import helper, numpy_helper

from model_folder import save


def table(quantized, scales, zero_points, block):
    codes = np.stack([quantized & 15, quantized >> 4], -1).reshape(scales.shape[0], scales.shape[1], block)
    zeros = np.stack([zero_points & 15, zero_points >> 4], -1).reshape(scales.shape[0], -1)[:, :scales.shape[1]]
    return ((codes - zeros[..., None].astype(np.float32)) * scales[..., None]).reshape(scales.shape[0], -1)


def main():
    source, out = sys.argv[1:3]
    model = onnx.load(f"{source}/model.onnx")
    graph = model.graph
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    gather = next(n for n in graph.node if n.op_type == "GatherBlockQuantized")
    attributes = {a.name: helper.get_attribute_value(a) for a in gather.attribute}
    head = next(n for n in graph.node if n.op_type == "MatMulNBits" and gather.input[2] in n.input)  # the tied weights
    assert attributes["bits"] == 4 and attributes["gather_axis"] == 0 and attributes["quantize_axis"] == 1
    weights = table(*(values[i] for i in head.input[1:4]), attributes["block_size"]).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(weights, "embedding"))
    gather.CopyFrom(helper.make_node("Gather", ["embedding", gather.input[1]], gather.output, gather.name, axis=0))
    attention = next(n for n in graph.node if n.op_type == "GroupQueryAttention")
    heads = next(a.i for a in attention.attribute if a.name == "num_heads")
    for value in [*graph.input, *graph.output]:
        if value.name.startswith(("past_key_values.", "present.")):
            value.type.tensor_type.shape.dim[3].dim_value = weights.shape[1] // heads
    save(model, source, out)


if __name__ == "__main__":
    main()
