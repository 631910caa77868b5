"""FedProx: a pull towards the received model.

Li et al. 2020, Federated Optimization in Heterogeneous Networks, arXiv 1812.06127, Section 3.2:
mu / 2 |y - w|^2 is added to the loss, hence mu (y - w) to its gradient. The norm is squared:
without the square the pull would have the same length wherever the model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import Objective
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class _Memo:
    received: list[Tensor]  # w
    mu: float


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
    return _Memo(shared.split(shared.values()), inputs.training.prox.mu)


@torch.no_grad()
def add_pull(shared: Trainables, anchors: Sequence[Tensor], strength: float) -> None:
    """Add to each gradient the offset of its parameter from its anchor, times `strength`."""
    for parameter, anchor in zip(shared.parameters, anchors, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter - anchor, alpha=strength)


def _correct(memo: _Memo, shared: Trainables) -> None:
    add_pull(shared, memo.received, memo.mu)


def pull_towards(anchor_T: Tensor, mu: float) -> Objective:
    """Return the objective with a pull towards given values instead of the received ones."""
    return Objective(
        begin=lambda inputs, shared: _Memo(shared.split(anchor_T), mu), correct=_correct
    )


PROX = Objective(begin=_begin, correct=_correct, pull=lambda training: training.prox.mu)
