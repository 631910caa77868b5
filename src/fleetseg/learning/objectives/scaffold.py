"""SCAFFOLD: add to each gradient the difference between the fleet's and the client's gradients.

Karimireddy et al. 2020, arXiv 1910.06378, Algorithm 1, option II. With c_i the mean gradient of
client i in its last round and c the mean of all c_i, each gradient becomes g - c_i + c, and

    c_i <- c_i - c + (w - y_i) / (K lr),    c <- c + (1 / N) sum over the cohort of the changes.

K lr is the travel of the steps taken, which accounts for momentum and a schedule. Over all rounds c
is the mean of the c_i of all N clients, including those never selected (zero).
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
    fleet_T: Tensor  # c
    own_T: Tensor  # c_i
    correction: list[Tensor]  # c - c_i


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    fleet_T = inputs.extras_T["control"].clone()
    own_T = inputs.state.get("control", torch.zeros_like(fleet_T))
    return _Memo(shared.values(), fleet_T, own_T, shared.split(fleet_T - own_T))


@torch.no_grad()
def _correct(memo: _Memo, shared: Trainables) -> None:
    for parameter, correction in zip(shared.parameters, memo.correction, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(correction)


def _end(memo: _Memo, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    if not cost.num_steps:  # this round yields no update
        return {}, {"control": torch.zeros_like(memo.own_T)}
    moved_T = (memo.received_T - shared.values()) / cost.travel
    change_T = moved_T - memo.fleet_T
    return {"control": memo.own_T + change_T}, {"control": change_T}


SCAFFOLD = Objective(extras=("control",), begin=_begin, correct=_correct, end=_end)
