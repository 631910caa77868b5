"""The loss of a model as it stands: by hand, and without a trace in the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.mean_loss import mean_loss

CPU = Hardware(torch.device("cpu"), "fp32")


class Constant(nn.Module):
    """Logits (0, log 3), whatever it sees, and a norm layer that counts batches in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        zeros = 0 * self.norm(images_NCHW)[:, :1]
        return torch.cat([zeros, zeros + np.log(3)], dim=1)


def loss_of(labels: list[int], batch_size: int) -> float:
    inputs = LocalInputs(
        RoundContext(0, 1, 1, "car"), TrainingConfig(loss="ce", batch_size=batch_size), (2, 2), CPU
    )
    image_HWC = np.zeros((2, 2, 3), np.uint8)
    pairs = [(image_HWC, np.full((2, 2), label, np.uint8)) for label in labels]
    return mean_loss(Constant(), pairs, inputs)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 9])
def test_by_hand(batch_size: int) -> None:
    # Probabilities are 1/4 and 3/4: cross entropies log 4 and log 4/3.
    expected = (np.log(4) + 2 * np.log(4 / 3)) / 3
    assert loss_of([0, 1, 1], batch_size) == pytest.approx(expected, rel=1e-6)


def test_what_has_no_label_has_no_loss() -> None:
    assert loss_of([IGNORE, 0], 1) == pytest.approx(np.log(4), rel=1e-6)
    assert loss_of([IGNORE], 1) == 0.0


def test_the_model_keeps_its_statistics_and_gets_no_gradient() -> None:
    model = Constant()
    inputs = LocalInputs(RoundContext(0, 1, 1, "car"), TrainingConfig(), (2, 2), CPU)
    pair = (np.full((2, 2, 3), 200, np.uint8), np.zeros((2, 2), np.uint8))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    mean_loss(model, [pair] * 3, inputs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
