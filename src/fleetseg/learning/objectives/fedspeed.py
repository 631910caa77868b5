"""FedSpeed: SAM's gradients, a pull towards the received model, and a correction of that pull.

Sun, Shen, Huang, Ding, Tao 2023, arXiv 2302.10429, Algorithm 1. With h_i the accumulated pulls of
client i, zero at first, and g the gradient at y + rho grad L(y) / |grad L(y)|, a step is along

    g + mu (y - w) - h_i,    and after the last    h_i <- h_i - mu (y - w);    y - h_i / mu is sent.

mu is the paper's 1 / lambda; half of the implementations call it lambda. At a fixed point of the
fleet, y = w and h_i is the client's own gradient, so the mean of the h_i is zero. The perturbation
has length rho, and the whole gradient is taken there (alpha = 1), as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import LocalCost, Objective, Vectors
from fleetseg.learning.objectives.prox import add_pull
from fleetseg.learning.objectives.sam import climb
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class _Memo:
    rho: float
    mu: float
    received_T: Tensor  # w
    own_T: Tensor  # h_i
    received: list[Tensor]
    own: list[Tensor]


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    settings, received_T = inputs.training.fedspeed, shared.values()
    own_T = inputs.state.get("pulls", torch.zeros_like(received_T))
    parts = shared.split(received_T), shared.split(own_T)
    return _Memo(settings.rho, settings.mu, received_T, own_T, *parts)


def _perturb(memo: _Memo, shared: Trainables) -> None:
    climb(shared.all_trained(), memo.rho)


@torch.no_grad()
def _correct(memo: _Memo, shared: Trainables) -> None:
    add_pull(shared, memo.received, memo.mu)
    for parameter, own in zip(shared.parameters, memo.own, strict=True):
        if parameter.grad is not None:
            parameter.grad.sub_(own)


@torch.no_grad()
def _end(memo: _Memo, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    if not cost.num_steps:  # this round yields no update
        return {}, {}
    learnt_T = shared.values()
    own_T = memo.own_T - memo.mu * (learnt_T - memo.received_T)
    sent = shared.split(learnt_T - own_T / memo.mu)
    for parameter, value in zip(shared.parameters, sent, strict=True):
        parameter.copy_(value)
    return {"pulls": own_T}, {}


FEDSPEED = Objective(begin=_begin, perturb=_perturb, correct=_correct, end=_end)
