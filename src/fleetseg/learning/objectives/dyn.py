"""FedDyn: a pull towards the received model, shifted by how far the client has drifted so far.

Acar et al. 2021, Federated Learning Based on Dynamic Regularization, arXiv 2111.04263, Algorithm 1:
client i minimises L - <g_i, y> + alpha / 2 |y - w|^2, and g_i <- g_i - alpha (y_i - w). With the
drift h_i = -g_i / alpha, the sum of all y_i - w, that adds to each gradient

    alpha (y - (w - h_i)),    h_i <- h_i + (y_i - w).

The server's part is in `federation.drift`. When no y_i moves any more, the gradient of L at y_i is
g_i, and the mean of all g_i is zero: the mean loss has its minimum at w.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.config import TrainingConfig
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.objective import LocalCost, Objective, Vectors
from fleetseg.learning.objectives.prox import add_pull
from fleetseg.learning.parameters import Trainables


@dataclass(frozen=True)
class _Memo:
    received_T: Tensor  # w
    drift_T: Tensor  # h_i
    anchors: list[Tensor]  # w - h_i
    alpha: float


def _correct(memo: _Memo, shared: Trainables) -> None:
    add_pull(shared, memo.anchors, memo.alpha)


def _end(memo: _Memo, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    return {"drift": memo.drift_T + (shared.values() - memo.received_T)}, {}


def drifting(alpha_of: Callable[[TrainingConfig], float]) -> Objective:
    """Return the objective, given how to read its alpha from the settings."""

    def begin(inputs: LocalInputs, shared: Trainables) -> _Memo:
        received_T = shared.values()
        drift_T = inputs.state.get("drift", torch.zeros_like(received_T))
        anchors = shared.split(received_T - drift_T)
        return _Memo(received_T, drift_T, anchors, alpha_of(inputs.training))

    return Objective(begin=begin, correct=_correct, end=_end)


DYN = drifting(lambda training: training.dyn.alpha)
