"""Scores of the global and the clients' own models, on the server's sets or on clients' frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from fleetseg.clients import HELD_OUT, FleetData
from fleetseg.config import EvaluationConfig
from fleetseg.data.sample import ScoredPairs
from fleetseg.errors import UpdateRejected
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.norms import Norms, require_scorable
from fleetseg.evaluation.scored import Scored
from fleetseg.evaluation.scores import add_up, sum_confs
from fleetseg.federation.checks import validate_evaluation
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.cluster_models import ClusterModels
from fleetseg.federation.collect import collect
from fleetseg.federation.counted import to_each
from fleetseg.federation.engine import Engine, Received
from fleetseg.federation.fleet_facts import told_facts
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, taking_part
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import scored_before
from fleetseg.federation.tasks.evaluate import score_pairs
from fleetseg.federation.tensors import ModelState
from fleetseg.learning.inputs import Facts
from fleetseg.runs.cluster_scores import on_own_clusters, score_clusters
from fleetseg.runs.image_counts import ImageCounts
from fleetseg.runs.protocols import protocol_of

_ByClient = dict[str, dict[str, Conf_CC]]


class Scorer:
    """Scores model states of one run; confusion matrices are summed, ratios are taken at the end.

    Scores record what they were taken on: `scored_on` names the server's sets or the clients that
    answered, `missing` the clients whose frames an earlier score, or this one, should have had.
    Scores of different frames do not compare. `keep` receives what single frames of the server's
    sets contribute to a score; for vehicles' own frames this is never known.
    """

    def __init__(
        self,
        fleet_data: FleetData,
        runtime: LocalRuntime,
        engine: Engine,
        keep: Callable[[ImageCounts], None] = lambda counts: None,
    ) -> None:
        self._fleet_data, self._runtime, self._engine = fleet_data, runtime, engine
        self._keep = keep
        settings = runtime.experiment.evaluation
        self._norms = server_norms(fleet_data, settings)
        self._clients_norms = Norms.on_clients(settings)

    @property
    def can_score(self) -> bool:
        """Whether there are test frames."""
        return bool(self._fleet_data.evaluation) or self._fleet_data.holds_out

    @property
    def scores_own_models(self) -> bool:
        """Whether clients have models of their own, and frames to score them on."""
        experiment = self._runtime.experiment
        has_frames = self._fleet_data.holds_out or experiment.evaluation.on_clients
        return experiment.personal.model != "none" and has_frames

    def score(
        self,
        model: ModelState,
        round_: int,
        records: Sequence[RoundRecord] = (),
        facts: Facts = MappingProxyType({}),
        clusters: ClusterModels | None = None,
    ) -> Scored | str:
        """Score on the server's sets; where it has none, on the clients' held-out frames.

        `round_` is the round that produced the model, `records` are of all rounds so far, `facts`
        are the fleet's; where there are clusters, each client is scored with its own cluster's
        model. If no client answered, returns the reason instead of scores.
        """
        if self._fleet_data.evaluation:
            scored: Scored | str = self._score_here(model, round_, clusters)
        else:
            scored = self._score_on_clients(model, round_, records, clusters)
        at_end_only = self._runtime.experiment.personal.scored == "end"
        if isinstance(scored, str) or at_end_only or not self.scores_own_models:
            return scored
        return self.with_personal(scored, model, round_, records, facts, clusters)[0]

    def _score_here(
        self, model: ModelState, round_: int, clusters: ClusterModels | None = None
    ) -> Scored:
        sets, norms, runtime = self._fleet_data.evaluation, self._norms, self._runtime
        counts = ImageCounts.empty(round_, sets, runtime.num_classes)
        told = counts.listeners(sets)
        own = None if clusters is None else score_clusters(runtime, clusters, sets, norms, told)
        if own is None or own.routed is None:
            runtime.whole.load(model)
            by_set = [
                score_pairs(runtime, part.scored, norms, on_image)
                for part, on_image in zip(sets, told, strict=True)
            ]
        else:
            by_set = own.routed
        self._keep(counts)
        scored = self._scored(add_up(by_set), [part.name for part in sets], round_, norms)
        return scored if own is None else replace(scored, clusters=own.scores)

    def _score_on_clients(
        self,
        model: ModelState,
        round_: int,
        records: Sequence[RoundRecord],
        clusters: ClusterModels | None = None,
    ) -> Scored | str:
        enrolled = self._with_test_frames()
        by_client, refused = self._on_clients(enrolled, model, round_, records, clusters=clusters)
        missing = sorted({*scored_before(records), *enrolled} - set(by_client))
        if not by_client:
            return "; ".join(refused[:3]) or "no client with test frames is connected"
        confs = add_up(by_client.values())
        scored = self._scored(confs, sorted(by_client), round_, self._clients_norms, missing)
        return replace(scored, clusters=on_own_clusters(clusters))

    def with_clients(
        self,
        scored: Scored | None,
        model: ModelState,
        round_: int,
        records: Sequence[RoundRecord] = (),
        clusters: ClusterModels | None = None,
    ) -> tuple[Scored, list[str]]:
        """Score on every client's own frames as well; return all scores, and what went wrong.

        A centralised run is scored on the frames of each client that it stands for.
        """
        if self._fleet_data.members:
            return self._with(scored, self._on_members(model), round_), []
        enrolled = self._with_test_frames()
        by_client, refused = self._on_clients(enrolled, model, round_, records, clusters=clusters)
        both = self._with(scored, by_client, round_)
        return replace(both, clusters=both.clusters or on_own_clusters(clusters)), refused

    def with_personal(
        self,
        scored: Scored | None,
        model: ModelState,
        round_: int,
        records: Sequence[RoundRecord],
        facts: Facts,
        clusters: ClusterModels | None = None,
    ) -> tuple[Scored, list[str]]:
        """Score every client's own model and, on the same frames, the global one.

        If parts of the model stay with clients, the global model is that of a client that has never
        taken part, with those parts as initialised. Returns all scores, and what went wrong.
        """
        enrolled = self._with_test_frames()
        common = "evaluate" if self._runtime.exchange.shares_all else "evaluate-global"
        ask = partial(self._on_clients, enrolled, model, round_, records, clusters=clusters)
        by_client, refused = ask(task=common)
        own, refused_own = ask(task="evaluate-personal", facts=facts)
        personal = {name: sum_confs(confs) for name, confs in sorted(own.items())}
        both = self._with(scored, by_client, round_).with_personal(
            personal, self._runtime.experiment.personal.model
        )
        return both, [*refused, *(f"personal: {text}" for text in refused_own)]

    def _with(self, scored: Scored | None, by_client: _ByClient, round_: int) -> Scored:
        confs = {name: sum_confs(confs) for name, confs in sorted(by_client.items())}
        frames = "held-out frames" if self._fleet_data.holds_out else "training frames"
        scored = scored or self._scored({}, (), round_, self._norms)
        return scored.with_clients(confs, frames, str(self._clients_norms))

    def _on_members(self, model: ModelState) -> _ByClient:
        self._runtime.whole.load(model)
        members, norms = self._fleet_data.members, self._clients_norms
        return {name: score_pairs(self._runtime, part, norms) for name, part in members.items()}

    def _with_test_frames(self) -> dict[str, Enrolment]:
        """Return the clients that can be scored now; vehicles come and go between scorings."""
        enrolled = taking_part(self._engine.available())
        return {name: e for name, e in sorted(enrolled.items()) if e.num_test_pixels > 0}

    def _on_clients(
        self,
        enrolled: Mapping[str, Enrolment],
        model: ModelState,
        round_: int,
        records: Sequence[RoundRecord],
        task: str = "evaluate",
        facts: Facts = MappingProxyType({}),
        clusters: ClusterModels | None = None,
    ) -> tuple[_ByClient, list[str]]:
        scores = _ClientScores(enrolled, round_, self._runtime.num_classes)
        told = told_facts(self._runtime.experiment, facts)
        groups = {None: list(enrolled)} if clusters is None else clusters.groups(enrolled)
        asks: dict[str, Broadcast] = {}
        for k, group in groups.items():
            of_group = model if clusters is None or k is None else clusters.model(k)
            broadcast = Broadcast(round_, self._runtime.exchange.to_score(of_group), told)
            asks |= to_each(broadcast, group, records)
        deadline_s = self._runtime.experiment.federation.deadline_s
        collect(self._engine, task, asks, scores, deadline_s=deadline_s)
        return scores.by_client, scores.refused

    def _scored(
        self,
        conf_by_domain: Mapping[str, Conf_CC],
        scored_on: Sequence[str],
        round_: int,
        norms: Norms,
        missing: Sequence[str] = (),
    ) -> Scored:
        data, experiment = self._fleet_data, self._runtime.experiment
        return Scored(
            data.space,
            conf_by_domain,
            tuple(scored_on),
            tuple(missing),
            data.seen_domains,
            protocol=protocol_of(experiment, data, scored_on, conf_by_domain, round_, norms),
        )


def server_norms(fleet_data: FleetData, settings: EvaluationConfig) -> Norms:
    """Return the norms that the server's sets are scored with.

    The held-out frames of all clients, on which a baseline is scored as one such set, are scored as
    clients score them: otherwise the baseline would use other statistics than the federation.
    """
    if [part.name for part in fleet_data.evaluation] == [HELD_OUT]:
        return Norms.on_clients(settings)
    return Norms.on_server(settings)


def require_scorable_run(fleet_data: FleetData, runtime: LocalRuntime) -> None:
    """Refuse server's sets that cannot be scored without the parts that stay with clients.

    Raises:
        ConfigError: see `evaluation.norms.require_scorable`.
        DataError: a domain of one image, where norms need statistics of several.
    """
    norms = server_norms(fleet_data, runtime.experiment.evaluation)
    untrained = runtime.exchange.untrained(runtime.experiment.training)
    for part in fleet_data.evaluation:
        where = f"federation.sharing = '{runtime.experiment.federation.sharing}' on {part.name}"
        require_scorable(runtime.model, untrained, norms, where=where)
        if norms.name != "running" and (alone := lone_images(part.scored, norms.batch_size)):
            score_pairs(runtime, alone, norms)


def lone_images(scored: ScoredPairs, batch_size: int) -> ScoredPairs | None:
    """Return an image that is scored in a batch of its own; None if there is none."""
    counts = Counter(scored.domains)
    for index, domain in enumerate(scored.domains):
        if batch_size == 1 or counts[domain] == 1:
            return ScoredPairs([scored.pairs[index]], (domain,))
    return None


@dataclass
class _ClientScores:
    """Collects clients' confusion matrices, each validated first."""

    enrolled: Mapping[str, Enrolment]
    round_: int
    num_classes: int
    by_client: _ByClient = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    is_full = False

    def add(self, reply: Received) -> Failure | None:
        """See Collector."""
        if not isinstance(reply, Evaluation):
            reason = reply.reason if isinstance(reply, Failure) else "an update, not scores"
            self.refused.append(f"no scores from {reply.client_id}: {reason}")
            return reply if isinstance(reply, Failure) else None
        try:
            validate_evaluation(
                reply,
                round_=self.round_,
                num_classes=self.num_classes,
                max_pixels=self.enrolled[reply.client_id].num_test_pixels,
            )
        except UpdateRejected as rejected:
            self.refused.append(f"scores of {reply.client_id} refused: {rejected}")
            return Failure.refused(reply.client_id, rejected)
        if reply.conf_by_domain:
            self.by_client[reply.client_id] = dict(reply.conf_by_domain)
        return None
