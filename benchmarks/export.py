"""Exported models beside torch: agreement of the logits, and images per second.

    python benchmarks/export.py [MODEL ...] [--size HxW] [--images FOLDER]

A MODEL is a run folder, a model folder or the name of a network (random weights). One thread, one
whole image of the given size at a time, up to the logits. All formats of a network are measured in
turns, in processor time, as medians of the turns, because the machine may be shared. "channels
last" is torch with its weights in that memory format, "int8" is calibrated on the same images.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fleetseg.data.labels import label_space
from fleetseg.data.sample import Image_HWC
from fleetseg.export.frames import given_frames
from fleetseg.export.graph import exported_graph
from fleetseg.export.measure import images_per_s
from fleetseg.export.onnx_graph import onnx_runner, write_onnx
from fleetseg.export.parity import parity
from fleetseg.export.quantise import quantise
from fleetseg.export.torch_graph import eager_runner
from fleetseg.models.build import build_model, is_known
from fleetseg.models.folder import load_model
from fleetseg.models.segmenter import Segmenter

NETWORKS = ("fast_scnn", "bisenetv2", "zoo:fpn/timm-tf_efficientnet_lite0")
FORMS = ("torch", "channels last", "onnx", "onnx int8")
IMAGES, TURNS = 12, 5


def opened(name: str) -> Segmenter:
    """Load a model, or build a network by its name."""
    if not is_known(name):
        return load_model(name)
    return build_model(name, label_space("camvid11").num_classes).eval()


def blocks(size_hw: tuple[int, int]) -> list[Image_HWC]:
    """Pictures of smooth blocks of colour."""
    generator = np.random.Generator(np.random.Philox(0))
    small = generator.integers(0, 256, (IMAGES, 9, 12, 3), dtype=np.uint8)
    return [np.array(Image.fromarray(one).resize(size_hw[::-1])) for one in small]


def row(model: Segmenter, size_hw: tuple[int, int], images: list[Image_HWC]) -> str:
    """Export a model, compare and time its formats; returns a line of the table."""
    graph = exported_graph(model)
    last = copy.deepcopy(graph).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as scratch:
        path, small = Path(scratch) / "model.onnx", Path(scratch) / "model_int8.onnx"
        write_onnx(graph, size_hw, path)
        quantise(path, small, images, Path(scratch))
        runners = (
            eager_runner(graph), eager_runner(last), onnx_runner(path, 1), onnx_runner(small, 1),
        )  # fmt: skip
        forms = dict(zip(FORMS, runners, strict=True))
        found = parity(forms["torch"], forms["onnx"], images)
        eight = parity(forms["torch"], forms["onnx int8"], images)
        rates = images_per_s(forms, images, TURNS)
        sizes = [file.stat().st_size / 1e6 for file in (path, small)]
    best = max(rates["torch"], rates["channels last"])
    return (
        f"| {model.name} | {sizes[0]:.1f} / {sizes[1]:.1f} | {found.relative:.0e} "
        f"| {100 * found.agreement:.2f} | {100 * eight.agreement:.1f} | "
        + " | ".join(f"{rates[form]:.1f}" for form in FORMS)
        + f" | {rates['onnx'] / best:.2f} | {rates['onnx int8'] / best:.2f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=NETWORKS)
    parser.add_argument("--size", default="180x240")
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    torch.set_num_threads(1)
    images = blocks((height, width))
    if options.images is not None:
        images = list(given_frames([options.images], (height, width), IMAGES).images)
    heads = ("network", "MB / int8", "largest difference", "same class, %", "int8, %")
    heads += (*FORMS, "onnx / torch", "int8 / torch")
    print(f"| {' | '.join(heads)} |\n|---|{'--:|' * (len(heads) - 1)}", flush=True)
    for name in options.models:
        print(row(opened(name), (height, width), images), flush=True)


if __name__ == "__main__":
    main()
