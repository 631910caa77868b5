"""The script written beside an exported model: `fleetseg predict` without fleetseg or torch."""

from __future__ import annotations

SCRIPT = "predict.py"
"""File name of the script."""

TEXT = '''"""Write class ids of road scenes: python predict.py MODEL.onnx OUT IMAGE...

Needs numpy, Pillow and onnxruntime. For each image: a palette PNG whose pixels are class ids.
"""

import json
import pathlib
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def interpolation(have, want):
    """Bilinear interpolation of one axis, pixel centres at halves, as a matrix (want, have)."""
    at = np.clip((np.arange(want) + 0.5) * have / want - 0.5, 0, have - 1)
    low, rows = at.astype(int), np.arange(want)
    matrix = np.zeros((want, have), np.float32)
    matrix[rows, low] = 1 - (at - low)
    matrix[rows, np.minimum(low + 1, have - 1)] += at - low
    return matrix


model, out, *images = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
_, height, width, _ = session.get_inputs()[0].shape  # the network's working size
told = session.get_modelmeta().custom_metadata_map  # classes, colours, how it was scored ...
palette = np.zeros((256, 3), np.uint8)
palette[: len(json.loads(told["classes"]))] = json.loads(told["colours"])
pathlib.Path(out).mkdir(parents=True, exist_ok=True)
for name in images:
    image = ImageOps.exif_transpose(Image.open(name)).convert("RGB")
    rgb = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    logits = session.run(None, {"images": rgb[None]})[0][0]  # (classes, h, w)
    rows, columns = (interpolation(*ends) for ends in zip(logits.shape[1:], image.size[::-1]))
    ids = Image.fromarray((rows @ logits @ columns.T).argmax(0).astype(np.uint8), "L")
    ids.putpalette(palette.tobytes())
    ids.save(pathlib.Path(out) / f"{pathlib.Path(name).stem}.png")
'''
