"""An objective with a vector that crosses the wire and one that stays: this file, and a dict line.

It is SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378, Algorithm 1, option II) at its plainest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives import LocalCost, Objective, Vectors
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class _Memo:
    start_T: Tensor
    fleet_T: Tensor  # c
    own_T: Tensor  # c_i
    correction: list[Tensor]  # c - c_i


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    fleet_T = inputs.extras_T["control"].clone()
    own_T = inputs.state.get("control", torch.zeros_like(fleet_T))
    return _Memo(shared.values(), fleet_T, own_T, shared.split(fleet_T - own_T))


def _correct(memo: _Memo, shared: Trainables) -> None:
    for parameter, correction in zip(shared.parameters, memo.correction, strict=True):
        if parameter.grad is not None:
            parameter.grad += correction


def _end(memo: _Memo, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    if not cost.num_steps:
        return {}, {"control": torch.zeros_like(memo.own_T)}
    own_T = memo.own_T - memo.fleet_T + (memo.start_T - shared.values()) / cost.travel
    return {"control": own_T}, {"control": own_T - memo.own_T}


TOY_CONTROL = Objective(extras=("control",), begin=_begin, correct=_correct, end=_end)
