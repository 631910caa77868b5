"""FedDC: a client's drift as in FedDyn, and a correction of its gradients as in SCAFFOLD.

Gao et al. 2022, FedDC: Federated Learning with Non-IID Data via Local Drift Decoupling and
Correction, arXiv 2203.11751, with the signs of its authors' code. To each gradient is added

    alpha (y - (w - h_i)) + c - c_i,

and after the round h_i <- h_i + (y_i - w), c_i <- c_i - c + (w - y_i) / (K lr), c the mean of all
c_i. The server's part of h is in `federation.drift`.
"""

from __future__ import annotations

from typing import Any

from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.objectives.dyn import drifting
from fleetseg.learning.objectives.objective import LocalCost, Objective, Vectors
from fleetseg.learning.objectives.scaffold import SCAFFOLD
from fleetseg.learning.parameters import Trainables

_PARTS = (drifting(lambda training: training.drift.alpha), SCAFFOLD)
_Memos = tuple[Any, ...]


def _begin(inputs: LocalInputs, shared: Trainables) -> _Memos:
    return tuple(part.begin(inputs, shared) for part in _PARTS)


def _correct(memos: _Memos, shared: Trainables) -> None:
    for part, memo in zip(_PARTS, memos, strict=True):
        if part.correct is not None:
            part.correct(memo, shared)


def _end(memos: _Memos, shared: Trainables, cost: LocalCost) -> tuple[Vectors, Vectors]:
    ends = [part.end(memo, shared, cost) for part, memo in zip(_PARTS, memos, strict=True)]
    kept = {name: vector_T for state, _ in ends for name, vector_T in state.items()}
    changes = {name: vector_T for _, extras in ends for name, vector_T in extras.items()}
    return kept, changes


DRIFT = Objective(extras=SCAFFOLD.extras, begin=_begin, correct=_correct, end=_end)
