"""The replies of a round: each is checked as a whole, then aggregated or counted as a failure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.config import FederationConfig, TrainingConfig
from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregate import MAX_VALUE, Bounded, Opening, all_believed
from fleetseg.federation.aggregators import AGGREGATORS
from fleetseg.federation.checks import norm_of, validate_update
from fleetseg.federation.claims import cut_to
from fleetseg.federation.cluster_fold import Folded, RoundClusters
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.engine import Engine, Received
from fleetseg.federation.feature_statistics import finish_variances, squares_of
from fleetseg.federation.known import Accepted, Known, Memory, Outcome
from fleetseg.federation.measures import check_measures
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, Update
from fleetseg.federation.sharing import only_down
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.tensors import Layout, ModelState
from fleetseg.federation.weights import weights_of
from fleetseg.learning.fedfa import SPREAD
from fleetseg.learning.inputs import Facts
from fleetseg.learning.local import num_steps
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.travel import travel_of

EMPTY: Mapping[str, Any] = MappingProxyType({})


class Collector(Protocol):
    """Receives the replies to a task."""

    @property
    def is_full(self) -> bool:
        """Whether the remaining replies are no longer needed."""
        ...

    def add(self, reply: Received) -> Failure | None:
        """Take a reply, or note why it cannot be used; returns the failure if there is one."""
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
    """Ask clients, if any, and pass on their replies until all are in or the collector is full."""
    if not asks:
        return
    for reply in engine.ask(task, asks, deadline_s):
        replied(reply, collector.add(reply))
        if collector.is_full:
            return


class RoundCollector:
    """Aggregates the replies of round after round; memory does not grow with the cohort."""

    def __init__(
        self,
        layout: Layout,
        settings: FederationConfig,
        scratch: Path | None = None,
        training: TrainingConfig = TrainingConfig(),  # noqa: B008 (frozen)
    ) -> None:
        self.layout = layout
        self._settings, self._training = settings, training
        self._objective = OBJECTIVES[training.objective]
        self._only_down = only_down(layout, self._objective.told)
        self._up = layout.without_extras(self._only_down)
        self._statistics = STATISTICS[settings.statistics]
        self._scratch = scratch
        # Room for a change together with what the server adds to it, if anything.
        self._room_F = torch.empty(layout.num_floats if self._only_down else 0)

    def open(
        self,
        round_: int,
        cohort: Cohort,
        enrolled: Mapping[str, Enrolment],
        base: ModelState,
        *,
        facts: Facts = EMPTY,
        memory: Memory = EMPTY,
        clusters: RoundClusters | None = None,
        believed: Mapping[str, Enrolment] | None = None,
        step_norms: Mapping[str, float] | None = None,
        bounded: Bounded = all_believed,
    ) -> None:
        """Start a round from the model that is sent to the cohort.

        `facts` are the fleet's; `memory` is what the weights remember; `clusters`, if clusters have
        tensors of their own, knows what each vehicle is sent. `believed` are the enrolments with
        capped counts, by which clients are weighted; None = as enrolled. `step_norms` bounds the
        norm per step of each client's change, see federation.step_norms; None = not measured.
        `bounded` caps other numbers that clients report.
        """
        self._round, self._base, self.cohort = round_, base, cohort
        self._enrolled = {client: enrolled[client] for client in sorted(cohort.asked)}
        counted = {client: (believed or enrolled)[client] for client in self._enrolled}
        self.cut = cut_to(self._enrolled, counted)
        known = Known(counted, round_, self._settings, facts, memory)
        self._measures: dict[str, Mapping[str, float]] = {}
        self._norms_allowed, self._counted = step_norms, counted
        self.step_norms: dict[str, float] = {}
        self._opening = self._make_opening(weights_of(known, bounded), bounded)
        self._clusters = clusters
        if clusters is None:
            self._aggregator = AGGREGATORS[self._settings.aggregator](self._opening)
        else:
            clusters.open(self._opening)
        self.counters_K: Tensor = base.counters_K.clone()
        self._waiting = set(cohort.asked)
        self.accepted: list[Accepted] = []
        self.failures: list[Failure] = []

    def _make_opening(self, weights: Mapping[str, int], bounded: Bounded) -> Opening:
        settings, training, round_ = self._settings, self._training, self._round
        pull = self._objective.pull(training)
        return Opening(
            self.layout.num_floats,
            self.layout.num_trainable,
            weights,
            settings,
            self._scratch,
            round_,
            {c: num_steps(e.num_images, training) for c, e in self._enrolled.items()},
            lambda steps: travel_of(steps, training, round_, settings.rounds, pull),
            self._measures,
            bounded,
        )

    @property
    def has_target(self) -> bool:
        """Whether the target number of updates is in."""
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
                raise UpdateRejected("malformed", "the reply is not an update")
            self._fold(reply)
        except UpdateRejected as rejected:
            return self._fail(Failure.refused(reply.client_id, rejected))
        return None

    def close(self) -> None:
        """Record the clients that have not answered; every later reply is refused.

        If the target was reached, they count as surplus, not as lost.
        """
        for client in sorted(self._waiting):
            gone = Failure(client, "late", "surplus") if self.has_target else None
            self._fail(gone or Failure(client, "lost", "no-answer"))
        self._waiting = set()

    def outcome(self) -> Outcome:
        """Return how the round went."""
        accepted = tuple(sorted(self.accepted, key=lambda a: a.client_id))
        return Outcome(self._round, tuple(sorted(self.cohort.asked)), accepted, self._settings)

    @property
    def has_quorum(self) -> bool:
        """Whether enough updates are in; always true if nobody was asked."""
        if not self.cohort.asked:
            return True
        # The tolerance is for products such as 0.55 * 20 = 11.000000000000002.
        least = self._settings.quorum * self.cohort.target - 1e-9
        return bool(self.accepted) and len(self.accepted) >= least

    def take_mean_delta(self) -> npt.NDArray[np.float32]:
        """Return the aggregated change; call once, with at least one accepted update."""
        mean_F = self._aggregator.finish()
        self._statistics.finish(mean_F, self.layout)
        finish_variances(mean_F, self.layout)
        return mean_F

    def take_clusters(self) -> tuple[Folded, dict[int, Folded]]:
        """Return the common aggregate and each cluster's; call once."""
        assert self._clusters is not None
        return self._clusters.take()

    @property
    def clusters_of(self) -> Mapping[str, int]:
        """The clusters of the vehicles whose updates were accepted, if there are clusters."""
        return {} if self._clusters is None else self._clusters.of

    def mean_loss(self) -> float | None:
        """Return the mean training loss, weighted by steps; None if no update was accepted."""
        steps = sum(t.num_steps for t in self.accepted)
        # Sorted, so that the float sum does not depend on the order of arrival.
        ordered = sorted(self.accepted, key=lambda t: t.client_id)
        return sum(t.loss * t.num_steps for t in ordered) / steps if steps else None

    def _fail(self, failure: Failure) -> Failure:
        self.failures.append(failure)
        return failure

    def _fold(self, update: Update) -> None:
        if update.client_id not in self._waiting:
            raise UpdateRejected("unasked", "not asked, or answered before", got=update.client_id)
        self._waiting.discard(update.client_id)
        base, cluster = self._base, 0
        if self._clusters is not None:
            cluster = self._clusters.cluster_of(update)
            base = self._clusters.base(update.client_id, cluster)
        validate_update(
            update,
            layout=self._up,
            base=ModelState(base.values_F[: self._up.num_floats], base.counters_K),
            round_=self._round,
            enrolled=self._enrolled[update.client_id],
            max_norm=self._settings.max_update_norm,
        )
        self._check_step_norm(update)
        check_measures(update.measures, self._settings)
        change_F = self._with_told(update).numpy()
        if self._statistics.fold is not None:
            change_F = self._statistics.fold(change_F, self.layout)
        if self._clusters is None:
            self._aggregator.add(update.client_id, change_F, update.num_steps)
        else:
            self._clusters.add(update, change_F, cluster)
        self._measures[update.client_id] = update.measures
        torch.maximum(self.counters_K, update.change.counters_K, out=self.counters_K)
        self.accepted.append(
            Accepted(
                update.client_id,
                update.num_steps,
                update.images_seen,
                update.loss,
                update.measures,
            )
        )

    def _check_step_norm(self, update: Update) -> None:
        """Measure the norm per step of a change, and refuse a change that is far too large."""
        if self._norms_allowed is None:
            return
        client = update.client_id
        # The reported steps only if they are fewer: some aggregators divide the change by them.
        steps = min(num_steps(self._counted[client].num_images, self._training), update.num_steps)
        norm = norm_of(update.change, self._up) / steps
        self.step_norms[client] = norm
        if (most := self._norms_allowed.get(client, math.inf)) < norm:
            raise UpdateRejected(
                "norm",
                "the norm of the change (L2, per step) is many times the fleet's recent norms",
                got=f"{norm:.4g}",
                expected=f"<= {most:.4g} (fleet.max_times_norm)",
            )

    def _with_told(self, update: Update) -> Tensor:
        """Add the client's change of vectors that are only sent down.

        See Objective and feature_statistics.
        """
        objective, layout, change_F = self._objective, self.layout, update.change.values_F
        if not self._only_down:
            return change_F
        self._room_F[: self._up.num_floats] = change_F
        if SPREAD in layout.spans:
            self._room_F[layout.spans[SPREAD]] = squares_of(change_F, layout)
        if not objective.told:
            return self._room_F
        assert objective.tell is not None
        travel = self._opening.travel_of(update.client_id, update.num_steps)
        for name in objective.told:
            told_T = self._base.values_F[layout.spans[name]]
            new_T = objective.tell(change_F[: layout.num_trainable], told_T, travel)
            if (largest := float(new_T.abs().max())) > MAX_VALUE:
                raise UpdateRejected(
                    "magnitude",
                    "a value is too large for so few steps",
                    where=name,
                    got=largest,
                    expected=f"<= {MAX_VALUE}",
                )
            self._room_F[layout.spans[name]] = new_T
        return self._room_F
