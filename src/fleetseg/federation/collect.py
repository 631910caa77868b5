"""One round's replies: each checked whole, then folded or counted as a failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.config import FederationConfig
from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregate import AGGREGATORS, Opening
from fleetseg.federation.checks import validate_update
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.engine import Engine, Received
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, Update
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.federation.weights import WEIGHTS


class Collector(Protocol):
    """What takes the replies to a task."""

    @property
    def is_full(self) -> bool:
        """Whether nobody waits for the clients that have not answered."""
        ...

    def add(self, reply: Received) -> Failure | None:
        """Take a reply in, or note why not; returns the failure, if it is one."""
        ...


def collect(
    engine: Engine,
    task: str,
    asks: Mapping[str, Broadcast],
    collector: Collector,
    *,
    deadline_s: float = 0.0,
    replied: Callable[[Received, Failure | None], None] = lambda reply, failure: None,
) -> None:
    """Ask clients and hand over what they answer, until all have or the collector is full."""
    for reply in engine.ask(task, asks, deadline_s):
        replied(reply, collector.add(reply))
        if collector.is_full:
            return


@dataclass(frozen=True)
class Accepted:
    """What is remembered of an update once it is folded."""

    client_id: str
    num_steps: int
    images_seen: int
    loss: float


class RoundCollector:
    """Folds the replies of one round after another; memory does not grow with the cohort."""

    def __init__(
        self, layout: Layout, settings: FederationConfig, scratch: Path | None = None
    ) -> None:
        self.layout = layout
        self._settings = settings
        self._statistics = STATISTICS[settings.statistics]
        self._scratch = scratch

    def open(
        self, round_: int, cohort: Cohort, enrolled: Mapping[str, Enrolment], base: ModelState
    ) -> None:
        """Start a round from what is sent to all of a cohort."""
        self._round, self._base, self.cohort = round_, base, cohort
        self._enrolled = {client: enrolled[client] for client in cohort.asked}
        weights = WEIGHTS[self._settings.weights](self._enrolled, self._settings)
        layout = self.layout
        opening = Opening(
            layout.num_floats, layout.num_trainable, weights, self._settings, self._scratch
        )
        self._aggregator = AGGREGATORS[self._settings.aggregator](opening)
        self.counters_K: Tensor = base.counters_K.clone()
        self._waiting = set(cohort.asked)
        self.accepted: list[Accepted] = []
        self.failures: list[Failure] = []

    @property
    def has_target(self) -> bool:
        """Whether as many updates are in as were wished for."""
        return len(self.accepted) >= self.cohort.target

    @property
    def is_full(self) -> bool:
        """See Collector: with over-selection, the target is enough."""
        return self.has_target and self.cohort.target < len(self.cohort.asked)

    def add(self, reply: Received) -> Failure | None:
        """See Collector."""
        if isinstance(reply, Failure):
            if reply.client_id not in self._waiting:
                reply = Failure(
                    reply.client_id, "refused", "unasked", "answered before, or not asked"
                )
            self._waiting.discard(reply.client_id)
            return self._fail(reply)
        try:
            if not isinstance(reply, Update):
                raise UpdateRejected("malformed", "no update, where one was asked for")
            self._fold(reply)
        except UpdateRejected as rejected:
            return self._fail(Failure.refused(reply.client_id, rejected))
        return None

    def close(self) -> None:
        """Note the clients that have not answered; from here on every reply is refused.

        Where the target was reached, nobody waited for them.
        """
        for client in sorted(self._waiting):
            gone = Failure(client, "late", "surplus") if self.has_target else None
            self._fail(gone or Failure(client, "lost", "no-answer"))
        self._waiting = set()

    def take_mean_delta(self) -> npt.NDArray[np.float32]:
        """The change that the cohort agrees on, once; needs at least one accepted update."""
        mean_F = self._aggregator.finish()
        self._statistics.finish(mean_F, self.layout)
        return mean_F

    def mean_loss(self) -> float | None:
        """Mean training loss, clients weighted by their steps; None if nothing was accepted."""
        steps = sum(t.num_steps for t in self.accepted)
        # Sorted, so that the float sum does not depend on who answered first.
        ordered = sorted(self.accepted, key=lambda t: t.client_id)
        return sum(t.loss * t.num_steps for t in ordered) / steps if steps else None

    def _fail(self, failure: Failure) -> Failure:
        self.failures.append(failure)
        return failure

    def _fold(self, update: Update) -> None:
        if update.client_id not in self._waiting:
            raise UpdateRejected("unasked", "not asked, or answered before", got=update.client_id)
        self._waiting.discard(update.client_id)
        validate_update(
            update,
            layout=self.layout,
            base=self._base,
            round_=self._round,
            enrolled=self._enrolled[update.client_id],
            max_norm=self._settings.max_update_norm,
        )
        change_F = update.change.values_F.numpy()
        if self._statistics.fold is not None:
            change_F = self._statistics.fold(change_F, self.layout)
        self._aggregator.add(update.client_id, change_F)
        torch.maximum(self.counters_K, update.change.counters_K, out=self.counters_K)
        self.accepted.append(
            Accepted(update.client_id, update.num_steps, update.images_seen, update.loss)
        )
