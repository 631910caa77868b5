"""What an objective is: plain functions around a client's steps.

They are called at the begin of a client's round, around the passes of each step and at the end.
Vectors with the suffix T are as long as the trainable values that the fleet shares, flat and on the
CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fleetseg.config import TrainingConfig
from fleetseg.learning.inputs import LocalInputs
from fleetseg.learning.parameters import Trainables
from fleetseg.learning.supervision import StepLoss

Vectors = Mapping[str, Tensor]


@dataclass(frozen=True)
class LocalCost:
    """What a round of local training took."""

    num_steps: int  # optimiser steps taken
    # How far they move a parameter whose gradient is always 1: the sum of their learning rates,
    # and with momentum the share of earlier gradients that each repeats. Of SGD only.
    travel: float


def _nothing(*_: object) -> None:
    return None


def _no_vectors(*_: object) -> tuple[Vectors, Vectors]:
    return {}, {}


def _no_pull(training: TrainingConfig) -> float:
    return 0.0


def _add_share(extra_T: Tensor, mean_change_T: Tensor, share: float) -> Tensor:
    return extra_T + share * mean_change_T


@dataclass(frozen=True)
class Objective:
    """How one method corrects local training.

    Args:
        extras: names of vectors that are sent beside the model, down and up; zero at first.
        told: names of vectors that are sent down only; zero at first. `tell` makes their changes.
        facts: what it takes of the fleet: see federation.fleet_facts.
        begin: (inputs, trainables as they were received) -> what the next four are given.
        loss: (that, loss of a step) -> the loss of a step in its place. Left out where it would be
            the same, as are the next two.
        perturb: (that, trainables): moves parameters in place after the backward pass, for the
            batch to be passed through once more, with the same draws and statistics, which move
            once. The gradients that are left are those at the moved parameters, which then are
            put back, bit for bit.
        correct: (that, trainables): may change gradients, after the last backward pass and before
            they are clipped.
        end: (that, trainables as they were learnt, cost) -> what the client keeps for its next
            round, and the change of each extra. What it leaves in the trainables is sent.
        tell: on the server, (a client's change of the trainables, a vector as that client was told
            it, travel of its steps) -> what that client changes of it.
        server: (extra or vector told, weighted mean of its changes, share of the fleet whose
            changes these are) -> the new vector. Left out, it keeps the mean over all clients, if
            weights are uniform, of what each has sent in sum.
        pull: how strong a pull towards the received model it adds to gradients, per distance.
    """

    extras: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    begin: Callable[[LocalInputs, Trainables], Any] = _nothing
    loss: Callable[[Any, StepLoss], StepLoss] | None = None
    perturb: Callable[[Any, Trainables], None] | None = None
    correct: Callable[[Any, Trainables], None] | None = None
    end: Callable[[Any, Trainables, LocalCost], tuple[Vectors, Vectors]] = _no_vectors
    tell: Callable[[Tensor, Tensor, float], Tensor] | None = None
    server: Callable[[Tensor, Tensor, float], Tensor] = _add_share
    pull: Callable[[TrainingConfig], float] = _no_pull

    @property
    def may_keep(self) -> bool:
        """Whether clients may keep something of their own for their next round."""
        return self.end is not _no_vectors

    @property
    def keeps_means(self) -> bool:
        """Whether its extras are means over the fleet, which a vehicle that joins makes smaller."""
        return bool(self.extras) and self.server is _add_share
