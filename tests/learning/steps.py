"""A network that is nothing but its logits, and the loss of a step on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fleetseg.config import TrainingConfig
from fleetseg.learning.hardware import Hardware
from fleetseg.learning.inputs import LocalInputs, RoundContext
from fleetseg.learning.supervision import SUPERVISION

CONTEXT = RoundContext(seed=3, round=1, total_rounds=2, client_id="car")


class Logits(nn.Module):
    """Gives the same logits whatever it sees; the first are the main output."""

    def __init__(self, *outputs: Tensor) -> None:
        super().__init__()
        self.outputs = nn.ParameterList([nn.Parameter(output.clone()) for output in outputs])

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Return them."""
        return tuple(self.outputs)


def inputs(
    training: dict[str, Any] | None = None, size_hw: tuple[int, int] = (4, 4), **fields: Any
) -> LocalInputs:
    cpu = Hardware(torch.device("cpu"), "fp32")
    return LocalInputs(CONTEXT, TrainingConfig(**(training or {})), size_hw, cpu, **fields)


def step(
    supervision: str, given: LocalInputs, labels_NHW: Tensor, *outputs: Tensor
) -> tuple[float, list[Tensor]] | None:
    """Return the loss of a step and the gradients of the outputs; None if there is no step."""
    model = Logits(*outputs)
    images_NCHW = torch.zeros(len(labels_NHW), 3, *given.size_hw)
    loss = SUPERVISION[supervision].make(given)(model, images_NCHW, labels_NHW)
    if loss is None:
        return None
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.outputs]
    return loss.item(), gradients
