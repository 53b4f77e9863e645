"""Model folders as the scripts here write them."""
import os
import shutil

import onnx


def save(model, source, out):
    """The model with its weights in a file beside it, and the texts (.json, .jinja) of the folder `source`."""
    os.makedirs(out, exist_ok=True)
    if os.path.exists(f"{out}/model.onnx.data"):
        os.remove(f"{out}/model.onnx.data")  # onnx would write behind what is there
    onnx.save(model, f"{out}/model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=1024)
    for f in os.listdir(source):
        if f.endswith((".json", ".jinja")):
            shutil.copy(f"{source}/{f}", out)
