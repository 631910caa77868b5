"""A network that runs out of memory where a picture is bright, or where a batch is too large."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fleetseg import rng

SIZE_HW = (16, 16)
BRIGHT = 255
Pairs = list[tuple[np.ndarray, np.ndarray]]


def raise_out_of_memory() -> None:
    """As torch does on CUDA."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 8 GiB")


class Greedy(nn.Module):
    """Two convolutions; `most` images are what the memory holds in evaluation."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 11, 1))

    def forward(self, images_NCHW: Tensor) -> Tensor:
        bright = bool((images_NCHW.amax(dim=(2, 3)) == images_NCHW.amin(dim=(2, 3))).all())
        if (bright and self.training) or (not self.training and len(images_NCHW) > self.most):
            raise_out_of_memory()
        self.batches.append(len(images_NCHW))
        out: Tensor = self.net(images_NCHW)
        return out


def network(most: int = 1000) -> Greedy:
    """The same weights each time."""
    with rng.torch_default(0, purpose="greedy"):
        return Greedy(most)


def pictures(seed: int, count: int = 4, bright: bool = False) -> Pairs:
    """Noise, or pictures that are `BRIGHT` all over."""
    generator = rng.generator(seed, purpose="pictures")
    made = []
    for _ in range(count):
        image = generator.integers(0, 256, (*SIZE_HW, 3), np.uint8)
        label = generator.integers(0, 11, SIZE_HW, np.uint8)
        made.append((np.full_like(image, BRIGHT) if bright else image, label))
    return made
