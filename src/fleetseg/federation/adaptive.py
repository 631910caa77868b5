"""Adaptive server optimisers: FedAdam, FedYogi, FedAdagrad.

Reddi et al. 2021, Adaptive Federated Optimization, arXiv 2003.00295, Algorithm 2: with the mean
change D as a pseudo-gradient that points in the direction of the step,

    m <- beta1 m + (1 - beta1) D
    v <- v + D^2                                Adagrad
         v - (1 - beta2) D^2 sign(v - D^2)      Yogi
         beta2 v + (1 - beta2) D^2              Adam
    x <- x + lr m / (sqrt(v) + tau)

with v = tau^2 initially and no bias correction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fleetseg.config import AdaptiveConfig, FederationConfig

Square = Callable[[Tensor, Tensor, AdaptiveConfig], Tensor]
Vectors = Mapping[str, Tensor]


def first_moments(settings: FederationConfig, num_trainable: int) -> Vectors:
    """Make the initial m and v; "rounds" counts the steps taken."""
    tau = settings.adaptive.tau if settings.adaptive.flavour == "paper" else 0.0
    return {
        "mean": torch.zeros(num_trainable),
        "square": torch.full((num_trainable,), tau**2),
        "rounds": torch.zeros(1),
    }


def adam(
    model_T: Tensor, delta_T: Tensor, slots: Vectors, settings: FederationConfig, share: float
) -> tuple[Tensor, Vectors]:
    """Take FedAdam's step.

    Flower's version (1.41) starts with v = 0 and corrects the bias as if there had been one more
    round.
    """
    adaptive, rounds = settings.adaptive, slots["rounds"].item() + 1
    lr = settings.server_lr
    if adaptive.flavour == "flower":
        first, second = (1 - beta ** (rounds + 1) for beta in (adaptive.beta1, adaptive.beta2))
        lr *= math.sqrt(second) / first
    return _step(model_T, delta_T, slots, adaptive, _adam_square, lr)


def yogi(
    model_T: Tensor, delta_T: Tensor, slots: Vectors, settings: FederationConfig, share: float
) -> tuple[Tensor, Vectors]:
    """Take FedYogi's step; Flower's version starts with v = 0."""
    return _step(model_T, delta_T, slots, settings.adaptive, _yogi_square, settings.server_lr)


def adagrad(
    model_T: Tensor, delta_T: Tensor, slots: Vectors, settings: FederationConfig, share: float
) -> tuple[Tensor, Vectors]:
    """Take FedAdagrad's step; Flower's version starts with v = 0."""
    return _step(model_T, delta_T, slots, settings.adaptive, _adagrad_square, settings.server_lr)


def _adam_square(v_T: Tensor, square_T: Tensor, adaptive: AdaptiveConfig) -> Tensor:
    return torch.lerp(square_T, v_T, adaptive.beta2)


def _yogi_square(v_T: Tensor, square_T: Tensor, adaptive: AdaptiveConfig) -> Tensor:
    return v_T - (1 - adaptive.beta2) * square_T * torch.sign(v_T - square_T)


def _adagrad_square(v_T: Tensor, square_T: Tensor, adaptive: AdaptiveConfig) -> Tensor:
    return v_T + square_T


def _step(
    model_T: Tensor,
    delta_T: Tensor,
    slots: Vectors,
    adaptive: AdaptiveConfig,
    square: Square,
    lr: float,
) -> tuple[Tensor, Vectors]:
    mean_T = torch.lerp(delta_T, slots["mean"], adaptive.beta1)
    square_T = square(slots["square"], delta_T.square(), adaptive)
    step_T = mean_T / square_T.sqrt().add_(adaptive.tau)
    slots = {"mean": mean_T, "square": square_T, "rounds": slots["rounds"] + 1}
    return torch.add(model_T, step_T, alpha=lr, out=delta_T), slots
