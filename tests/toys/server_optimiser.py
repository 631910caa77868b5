"""A server optimiser as somebody else would add one: this file, and a line in a dict."""

from __future__ import annotations

import torch
from torch import Tensor

from fleetseg.config import FederationConfig
from fleetseg.federation.server_optim import ServerOptimiser, Slots


def _step(
    model_T: Tensor, delta_T: Tensor, slots: Slots, settings: FederationConfig, share: float
) -> tuple[Tensor, Slots]:
    mean_T = 0.9 * slots["mean"] + 0.1 * delta_T
    square_T = 0.99 * slots["square"] + 0.01 * delta_T.square()
    step_T = mean_T / (square_T.sqrt() + 1e-3)
    return torch.add(model_T, step_T, alpha=settings.server_lr), {
        "mean": mean_T,
        "square": square_T,
    }


def _first(settings: FederationConfig, num_trainable: int) -> Slots:
    return {"mean": torch.zeros(num_trainable), "square": torch.zeros(num_trainable)}


TOY_ADAM = ServerOptimiser(_first, _step)
