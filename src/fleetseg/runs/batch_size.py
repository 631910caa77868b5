"""How many images go through a model at a time: as many as memory has room for, up to a limit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fleetseg.data.sample import Image_HWC
from fleetseg.evaluation.norms import Norms
from fleetseg.memory import free_bytes
from fleetseg.runs.inference import ReadyModel

MOST_ON_CPU = 8
"""A CPU computes one image as fast as each of several; more only fill its memory."""
MOST_ON_GPU = 32

_PART = 0.5  # of the free memory: other programs use some, too
_OWN_BYTES = 32  # of a pixel of the image itself: its copies, one class's logits, the map

BatchSize = Callable[[Image_HWC], int]
"""How many images of this one's size go at a time."""


def batch_size_of(ready: ReadyModel, wanted: int | None, tiled: bool = False) -> BatchSize:
    """Return the batch size for images: the one that is wanted, or as many as fit.

    Statistics of a batch depend on its size, so that memory has no say in them. The network's need
    is measured with the first image; for use within `ready.on_device`.
    """
    if wanted is not None:
        return lambda image_HWC: wanted
    if ready.norms.name != "running":
        return lambda image_HWC: Norms().batch_size
    sizes: dict[tuple[int, ...], int] = {}

    def chosen(image_HWC: Image_HWC) -> int:
        shape = image_HWC.shape
        if shape not in sizes:
            sizes[shape] = _that_fits(ready, (shape[0], shape[1]), tiled)
        return sizes[shape]

    return chosen


def _that_fits(ready: ReadyModel, image_hw: tuple[int, int], tiled: bool) -> int:
    device = ready.hardware.device
    most = MOST_ON_CPU if device.type == "cpu" else MOST_ON_GPU
    free = free_bytes(device)
    if free is None:
        return MOST_ON_CPU
    classes = ready.segmenter.num_classes
    own = image_hw[0] * image_hw[1] * _OWN_BYTES
    if device.type != "cpu" or tiled:  # logits of all classes at the image's size
        own += image_hw[0] * image_hw[1] * classes * 4
    return int(min(most, max(1, free * _PART // (network_bytes(ready) + own))))


def network_bytes(ready: ReadyModel) -> int:
    """Return the bytes that one image of the working size takes in a forward pass.

    On CUDA the peak, as torch counts it; elsewhere what all layers put out together, which is more
    than is held at a time.
    """
    image_NHWC = np.zeros((1, *ready.size_hw, 3), np.uint8)
    device = ready.hardware.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        ready.look(image_NHWC, lambda logits_NCHW: None)
        return int(torch.cuda.max_memory_allocated(device)) - before
    total = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal total
        total += output.nbytes if isinstance(output, Tensor) else 0

    with ExitStack() as hooks:
        for module in ready.segmenter.modules():
            if not any(True for _ in module.children()):
                handle = module.register_forward_hook(count)
                hooks.callback(handle.remove)
        ready.look(image_NHWC, lambda logits_NCHW: None)
    return total
