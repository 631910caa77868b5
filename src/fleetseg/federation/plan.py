"""A run's choices applied to each round: who is asked, what is sent, and the server's step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fleetseg.config import Experiment
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.claims import Claims
from fleetseg.federation.cluster_models import ClusterModels
from fleetseg.federation.cluster_references import advance_cluster_references
from fleetseg.federation.cluster_state import of_cluster, own_states, with_clusters_placed
from fleetseg.federation.cluster_step import (
    cluster_asks,
    cluster_step,
    remember_clusters,
    round_clusters,
)
from fleetseg.federation.cohort import SAMPLERS, Cohort, sample_cohort
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.counted import to_each
from fleetseg.federation.downlink import Downlink, bases, state_of
from fleetseg.federation.feature_statistics import ADVANCE
from fleetseg.federation.fleet_facts import facts_of_fleet, told_facts
from fleetseg.federation.known import Memory
from fleetseg.federation.membership import (
    size_of_fleet,
    with_extras_scaled,
    with_met,
    with_slots_scaled,
)
from fleetseg.federation.messages import Broadcast, Enrolment
from fleetseg.federation.publishing import PUBLISHING, Publication
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.references import advance_references
from fleetseg.federation.server_optim import SERVER_OPTIMISERS, Slots, server_step
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.step_norms import norms_allowed
from fleetseg.federation.tensors import ModelState
from fleetseg.federation.weights import WEIGHTS
from fleetseg.learning.objectives import OBJECTIVES

_SAMPLER, _WEIGHTS, _FLEET = "sampler", "weights", "fleet"  # owners of memory about clients


class Guard(Protocol):
    """Monitors the scores of a run."""

    def why_stop(self, records: Sequence[RoundRecord]) -> str | None:
        """Return the reason to end the run, if there is one."""
        ...

    def keep(
        self,
        model: ModelState,
        round_: int,
        scored: Scored,
        clusters: ClusterModels | None = None,
    ) -> None:
        """Note a round's model, its clusters' models and their scores."""
        ...


@dataclass(frozen=True)
class Plan:
    """What a run needs besides clients: the experiment, what is exchanged, how to score."""

    experiment: Experiment
    exchange: Exchange
    # Scores a model, or says why there are no scores, given the round that made it, all rounds so
    # far, the fleet's facts and, if there are clusters, their models.
    score: Callable[..., Scored | str] | None = None
    # Turns a model into the one that is scored and saved, by asking clients; same arguments.
    refine: Callable[[ModelState, int, Sequence[RoundRecord]], ModelState] | None = None
    scratch: Path | None = None  # a folder for what an aggregator does not keep in memory
    round_every_s: float = 0.0  # least wall-clock time between round starts
    downlink: Downlink | None = None  # None = vehicles are sent the whole model
    seconds_of: Callable[[Enrolment], float] | None = None  # time of a client's round, if simulated
    guard: Guard | None = None  # monitors scores; None = no monitoring
    claims: Claims = field(default_factory=Claims)  # limits on what clients claim to hold
    max_times_norm: float = 0.0  # limit on norms per step, relative to the fleet's; 0 = none

    def with_facts(self, state: ServerState, enrolled: Mapping[str, Enrolment]) -> ServerState:
        """Compute the facts of the fleet before the first round; they do not change later.

        Nor do its clusters; vehicles that come later are assigned to one.
        """
        if state.round == 0 and not state.facts:
            believed = self.claims.believed(enrolled)
            state = replace(state, facts=facts_of_fleet(self.experiment, believed))
        return with_clusters_placed(self.experiment, self.exchange, state, enrolled)

    def sample(self, state: ServerState, enrolled: Mapping[str, Enrolment]) -> Cohort:
        """Draw the cohort of the next round."""
        return sample_cohort(
            self.claims.believed(enrolled),
            self.experiment.federation,
            seed=self.experiment.seed,
            round_=state.round + 1,
            facts=state.facts,
            memory=state.memory.get(_SAMPLER),
            seconds_of=self.seconds_of,
        )

    def open(
        self,
        collector: RoundCollector,
        state: ServerState,
        cohort: Cohort,
        enrolled: Mapping[str, Enrolment],
        asks: Mapping[str, Broadcast],
        records: Sequence[RoundRecord],
    ) -> None:
        """Start the next round, in which clients were sent the broadcasts in `asks`."""
        norms = None
        if self.max_times_norm:
            norms = norms_allowed(records, enrolled, self.max_times_norm)
        sent, memory, clusters = self.sent(state), state.memory.get(_WEIGHTS, {}), None
        if self.exchange.is_clustered:
            clusters = round_clusters(state, self.exchange, self.experiment.federation, asks)
        collector.open(
            state.round + 1, cohort, enrolled, sent,
            facts=state.facts, memory=memory, clusters=clusters,
            believed=self.claims.believed(enrolled), step_norms=norms, bounded=self.claims.bounded,
        )  # fmt: skip

    def with_broadcast(self, state: ServerState) -> ServerState:
        """Move the model that vehicles are sent towards the server's, if it is not the same."""
        if self.downlink is None:
            return state
        model = self.exchange.sent(state.model)
        return replace(state, held=self.downlink.advance(state.held, model, state.round + 1))

    def with_references(self, state: ServerState) -> ServerState:
        """Advance the reference models to the next round."""
        exchange, experiment = self.exchange, self.experiment
        if not exchange.references:
            return state
        if exchange.is_clustered:
            of_clusters = advance_cluster_references(state, exchange, experiment)
            return replace(state, references=of_clusters)
        sent_F = exchange.shared_of(self.sent(state)).values_F
        references = advance_references(
            state.references,
            exchange.references,
            sent_F,
            state.round + 1,
            experiment.training.self_training,
            experiment.federation.rounds,
        )
        return replace(state, references=references)

    def sent(self, state: ServerState) -> ModelState:
        """Return the model that all vehicles train from in the next round."""
        return state_of(state.held) if self.downlink else self.exchange.sent(state.model)

    def asks(
        self, state: ServerState, clients: Collection[str], records: Sequence[RoundRecord]
    ) -> dict[str, Broadcast]:
        """Make each client's broadcast for the next round."""
        facts = told_facts(self.experiment, state.facts)
        if self.exchange.is_clustered:
            settings = self.experiment.federation
            return cluster_asks(state, self.exchange, settings, clients, records, facts)
        sent = self.exchange.with_references(self.sent(state), state.references)
        broadcast = Broadcast(state.round + 1, sent, facts, lineage=state.lineage)
        asks = to_each(broadcast, clients, records)
        if self.downlink is None:
            return asks
        return self.downlink.as_changes(state.held, asks, bases(records, clients))

    def published(self, state: ServerState) -> ModelState:
        """Return the model that is scored and saved, as far as the server can make it."""
        model = self._scored(state.model, state.slots)
        remembered = of_cluster(state.published, None)
        return self._publication.model(model, remembered, self.experiment.federation)

    def cluster_models(self, state: ServerState) -> ClusterModels | None:
        """Return the clusters' models that are scored and saved too, if there are clusters."""
        if not state.clusters:
            return None
        settings = self.experiment.federation
        own = tuple(
            self._publication.model(tensors, of_cluster(state.published, k), settings)
            for k, tensors in enumerate(own_states(state))
        )
        return ClusterModels(self.exchange, self.experiment, self.published(state), own, state)

    def scored(
        self, model: ModelState, state: ServerState, records: Sequence[RoundRecord]
    ) -> Scored | str:
        """Score a state's published model, or return why there are no scores."""
        assert self.score is not None
        clusters = self.cluster_models(state)
        if clusters is None:
            return self.score(model, state.round, records, state.facts)
        return self.score(model, state.round, records, state.facts, clusters)

    def refined(self, state: ServerState, records: Sequence[RoundRecord]) -> ModelState:
        """Return the model that is scored and saved, including what clients contribute to it."""
        model = self.published(state)
        return model if self.refine is None else self.refine(model, state.round, records)

    def server_update(
        self, state: ServerState, collector: RoundCollector, present: Collection[str]
    ) -> ServerState:
        """Take the server's step; leave the model unchanged if the quorum was missed.

        A round in which nobody was asked also leaves it unchanged, and does not count as failed.
        `present` are the clients that are available, asked or not.
        """
        settings, exchange = self.experiment.federation, self.exchange
        state = replace(state, memory=self._remembered(state, collector))
        if not collector.cohort.asked:
            return replace(state, round=state.round + 1)
        if not collector.has_quorum:
            return replace(state, round=state.round + 1, failed_rounds=state.failed_rounds + 1)
        state, of = self._with_fleet(state, present)
        share = len(collector.accepted) / of
        if exchange.is_clustered:
            state = cluster_step(state, collector, exchange, settings)
            return self._with_published(state)
        sent, slots = server_step(
            exchange.sent(state.model),
            state.slots,
            collector.take_mean_delta(),
            collector.counters_K,
            layout=exchange.wire,
            settings=settings,
            share=share,
            advance_extra=partial(self._advance_extra, share),
        )
        model = exchange.received(state.model, sent)
        return self._with_published(replace(state, model=model, slots=slots))

    def _advance_extra(self, share: float, name: str, extra_T: Tensor, mean_T: Tensor) -> Tensor:
        if name in ADVANCE:
            return ADVANCE[name](extra_T, mean_T)
        return OBJECTIVES[self.experiment.training.objective].server(extra_T, mean_T, share)

    def _with_published(self, state: ServerState) -> ServerState:
        """Update the publishing state with a new model, and finish a round that made a step."""
        publication, settings = self._publication, self.experiment.federation
        model, before = self._scored(state.model, state.slots), of_cluster(state.published, None)
        published = publication.remember(before, model, state.round + 1, settings)
        if state.clusters:
            published = {**published, **remember_clusters(state, publication, settings)}
        return replace(state, published=published, round=state.round + 1, failed_rounds=0)

    def _with_fleet(self, state: ServerState, present: Collection[str]) -> tuple[ServerState, int]:
        """Count the clients present, if means over the fleet are kept; also returns N."""
        objective = OBJECTIVES[self.experiment.training.objective]
        slots = SERVER_OPTIMISERS[self.experiment.federation.server_optimiser].means
        if not (objective.keeps_means or slots):
            return state, len(present)
        before = state.memory.get(_FLEET, {})
        met = with_met(before, present)
        of = size_of_fleet(met)
        factor = (size_of_fleet(before) or of) / of
        if objective.keeps_means:
            layout, names = self.exchange.server, objective.extras
            state = replace(state, model=with_extras_scaled(state.model, layout, names, factor))
        slots_now = with_slots_scaled(state.slots, slots, factor)
        return replace(state, slots=slots_now, memory={**state.memory, _FLEET: met}), of

    def _scored(self, server: ModelState, slots: Slots) -> ModelState:
        """Return the model to score, where the one that is sent is shifted from it."""
        exchange, settings = self.exchange, self.experiment.federation
        scored = SERVER_OPTIMISERS[settings.server_optimiser].scored
        if scored is None:
            return exchange.model_of(server)
        sent = exchange.sent(server).clone()
        values_T = sent.values_F[: exchange.wire.num_trainable]
        values_T.copy_(scored(values_T, slots))
        return exchange.model_of(exchange.received(server, sent))

    def _remembered(self, state: ServerState, collector: RoundCollector) -> dict[str, Memory]:
        """Update the memory of the sampler and, if the round's updates count, of the weights."""
        settings, outcome = self.experiment.federation, collector.outcome()
        owners = {_SAMPLER: SAMPLERS[settings.sampler].remember}
        if collector.has_quorum and collector.accepted:
            owners[_WEIGHTS] = WEIGHTS[settings.weights].remember
        tables = {
            owner: remember(state.memory.get(owner, {}), outcome)
            for owner, remember in owners.items()
        }
        return {**state.memory, **{owner: table for owner, table in tables.items() if table}}

    @cached_property
    def _publication(self) -> Publication:
        return PUBLISHING[self.experiment.federation.publishing]
