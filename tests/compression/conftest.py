"""A small model's layout, and updates of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fleetseg import rng
from fleetseg.federation.messages import Update
from fleetseg.federation.tensors import Layout, ModelState, layout_of


@pytest.fixture(scope="session")
def layout() -> Layout:
    """Five trainable tensors, one of them a scalar, two statistics, a counter."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(1))
    return layout_of(net)


@pytest.fixture(scope="session")
def update(layout: Layout) -> Callable[[int], Update]:
    """Make the update of car-1 for a round."""

    def make(round_: int = 1) -> Update:
        generator = rng.torch_generator(0, round_, "car-1", "test-compression")
        values_F = torch.randn(layout.num_floats, generator=generator) * 1e-2
        change = ModelState(values_F, torch.tensor([round_ * 7]))
        return Update(round_, "car-1", change, 10, 1000, 3, 12, 0.25)

    return make
