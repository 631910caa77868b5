"""The definition of an objective: plain functions around a client's steps.

They are called at the start of a client's round, around the passes of each step, and at the end.
Vectors with the suffix T are flat, on the CPU, and as long as the trainable values that the fleet
shares.
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
    """The cost of a round of local training."""

    num_steps: int  # optimiser steps taken
    # How far the steps move a parameter whose gradient is always 1: the sum of their learning
    # rates, plus the repeated share of earlier gradients with momentum. For SGD only.
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
        extras: names of vectors sent beside the model in both directions; zero at first.
        told: names of vectors sent only to clients; zero at first. `tell` computes their changes.
        facts: facts about the fleet that it needs: see federation.fleet_facts.
        begin: (inputs, trainables as received) -> a memo, passed to the next four functions.
        loss: (memo, loss of a step) -> its replacement. Omit if unchanged, like the next two.
        perturb: (memo, trainables): moves parameters in place after the backward pass. The batch
            then goes through a second pass with the same random draws and statistics, which are
            updated only once. The gradients are those at the moved parameters, which are then
            restored, bit for bit.
        correct: (memo, trainables): may change gradients, after the last backward pass and before
            clipping.
        end: (memo, trainables after training, cost) -> what the client keeps for its next round,
            and the change of each extra. What it leaves in the trainables is sent.
        tell: on the server, (a client's change of the trainables, the told vector as sent to that
            client, travel of its steps) -> that client's change of the vector.
        server: (extra or told vector, weighted mean of its changes, the cohort's share of the
            fleet) -> the new vector. By default, and with uniform weights, the vector is the mean
            over all clients of the sum of the changes that each has sent.
        pull: strength, per distance, of the pull towards the received model in the gradients.
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
        """Whether clients may keep their own state for their next round."""
        return self.end is not _no_vectors

    @property
    def keeps_means(self) -> bool:
        """Whether its extras are means over the fleet, which shrink when a vehicle joins."""
        return bool(self.extras) and self.server is _add_share
