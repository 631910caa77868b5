"""MimeLite: clients step with the fleet's momentum, which local steps do not change.

Karimireddy, Jaggi, Kale, Mohri, Reddi, Stich, Suresh 2020, arXiv 2008.03606, mimicking SGD with
momentum. With m the fleet's momentum and w the received model, a step is along

    (1 - beta) g(y) + beta m,    and the server takes    m <- (1 - beta) mean_i g_i(w) + beta m.

g_i(w) is the client's gradient at the start of its round, here the mean over the round's batches:
each goes through a second pass at w. The paper uses a pass over all samples instead, of the same
cost if a round is an epoch. With one step per round, this is SGD with momentum on the mean loss of
the cohort. Parameters that a sharing policy keeps on the client have no m and take plain steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import LocalCost, Objective, Vectors
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class _Memo:
    beta: float
    fleet_T: Tensor  # m
    fleet: list[Tensor]
    received: list[Tensor]  # w
    sums: list[Tensor]  # of gradients at w
    first: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # gradients at y


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    fleet_T = inputs.extras_T["momentum"].clone()
    sums = [torch.zeros_like(parameter) for parameter in shared.parameters]
    received = [parameter.detach().clone() for parameter in shared.parameters]
    return _Memo(inputs.training.mimelite.beta, fleet_T, shared.split(fleet_T), received, sums)


@torch.no_grad()
def _perturb(memo: _Memo, shared: Trainables) -> None:
    memo.first[:] = [(p, p.grad) for p in shared.all_trained() if p.grad is not None]
    for parameter, received in zip(shared.parameters, memo.received, strict=True):
        parameter.copy_(received)


@torch.no_grad()
def _correct(memo: _Memo, shared: Trainables) -> None:
    for parameter, total in zip(shared.parameters, memo.sums, strict=True):
        if parameter.grad is not None:
            total.add_(parameter.grad)
    for parameter, gradient in memo.first:
        parameter.grad = gradient
    for parameter, momentum in zip(shared.parameters, memo.fleet, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(1 - memo.beta).add_(momentum, alpha=memo.beta)


def _end(memo: _Memo, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    sum_T = torch.cat([total.reshape(-1).cpu() for total in memo.sums])
    change_T = (1 - memo.beta) * (sum_T / max(cost.num_steps, 1) - memo.fleet_T)
    return {}, {"momentum": change_T}


def _advance(fleet_T: Tensor, mean_change_T: Tensor, share: float) -> Tensor:
    """Apply the whole change whatever the cohort: its gradient stands for the fleet's."""
    return fleet_T + mean_change_T


MIMELITE = Objective(
    extras=("momentum",),
    begin=_begin,
    perturb=_perturb,
    correct=_correct,
    end=_end,
    server=_advance,
)
