"""FedCM: each step mostly follows the direction of the fleet's last round.

Xu et al. 2021, FedCM: Federated Learning with Client-level Momentum, arXiv 2106.10874: with D the
mean gradient of the last round's steps, each gradient g becomes

    alpha g + (1 - alpha) D,    D = -(mean change) / (K lr) of the last round; zero in the first.

Here K lr is the travel of each client's own steps, so that D is a gradient however many steps they
are. The server sends D to clients; it computes D from their changes and numbers of steps, which it
has anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import Objective
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class _Memo:
    fleet: list[Tensor]  # D
    alpha: float


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    fleet_T = inputs.extras_T["momentum"].clone()
    return _Memo(shared.split(fleet_T), inputs.training.client_momentum.alpha)


@torch.no_grad()
def _correct(memo: _Memo, shared: Trainables) -> None:
    for parameter, gradient in zip(shared.parameters, memo.fleet, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(memo.alpha).add_(gradient, alpha=1 - memo.alpha)


def _tell(change_T: Tensor, fleet_T: Tensor, travel: float) -> Tensor:
    return -change_T / travel - fleet_T


def _server(fleet_T: Tensor, mean_change_T: Tensor, share: float) -> Tensor:
    """Use the mean over the cohort, whatever its share of the fleet."""
    return fleet_T + mean_change_T


CLIENT_MOMENTUM = Objective(
    told=("momentum",), begin=_begin, correct=_correct, tell=_tell, server=_server
)
