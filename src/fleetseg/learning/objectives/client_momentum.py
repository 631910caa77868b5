"""FedCM: each step goes mostly where the fleet went in its last round.

Xu et al. 2021, FedCM: Federated Learning with Client-level Momentum, arXiv 2106.10874: with D the
mean gradient of the last round's steps, each gradient g becomes

    alpha g + (1 - alpha) D,    D = -(mean change) / (K lr) of the last round; zero in the first.

Here K lr is the travel of each client's own steps, so that D is a gradient however many those are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import LocalCost, Objective, Vectors
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class _Memo:
    received_T: Tensor  # w
    fleet_T: Tensor  # D
    fleet: list[Tensor]
    alpha: float


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    fleet_T = inputs.extras_T["momentum"].clone()
    alpha = inputs.training.client_momentum.alpha
    return _Memo(shared.values(), fleet_T, shared.split(fleet_T), alpha)


@torch.no_grad()
def _correct(memo: _Memo, shared: Trainables) -> None:
    for parameter, gradient in zip(shared.parameters, memo.fleet, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(memo.alpha).add_(gradient, alpha=1 - memo.alpha)


def _end(memo: _Memo, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    if not cost.num_steps:  # no update comes of it
        return {}, {"momentum": torch.zeros_like(memo.fleet_T)}
    moved_T = (memo.received_T - shared.values()) / cost.travel
    return {}, {"momentum": moved_T - memo.fleet_T}


def _server(fleet_T: Tensor, mean_change_T: Tensor, share: float) -> Tensor:
    """Take the mean over the cohort, however large a part of the fleet that is."""
    return fleet_T + mean_change_T


CLIENT_MOMENTUM = Objective(
    extras=("momentum",), begin=_begin, correct=_correct, end=_end, server=_server
)
