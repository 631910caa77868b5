"""A small network that brings the toys to the worker that it is sent to."""

from __future__ import annotations

import torch
from tests.toys import all as toys
from torch import Tensor, nn

toys.add()


class ToyNet(nn.Module):
    """Two convolutions with a batch norm between them."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            self.first = nn.Conv2d(3, 6, 3, padding=1)
            self.norm = nn.BatchNorm2d(6)
            self.last = nn.Conv2d(6, num_classes, 1)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.relu(self.norm(self.first(images_NCHW))))
        return logits
