"""The scores of one model, with their context: counts are stored, and ratios computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from fleetseg.data.labels import LabelSpace
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.protocol import Protocol
from fleetseg.evaluation.scores import Scores, score_domains, seen_unseen, sum_confs


@dataclass(frozen=True, eq=False)
class ClusterScores:
    """The clusters of vehicles, and the scores of each cluster's model on the server's sets."""

    headline: str  # how the headline figure is obtained: which model got which image
    members: Mapping[str, int]  # the cluster of each vehicle
    conf_by_cluster: tuple[Conf_CC, ...] = ()  # on all of the server's frames; none on clients'
    routed: tuple[int, ...] = ()  # number of those frames given to each cluster's model

    def to_dict(self, space: LabelSpace) -> dict[str, Any]:
        """Return plain values for JSON."""
        scores = [Scores.of(conf_CC, space).to_dict() for conf_CC in self.conf_by_cluster]
        routed = {"routed": list(self.routed)} if self.routed else {}
        members = dict(self.members)
        return {"headline": self.headline, "of": members, **routed, "by_cluster": scores}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ClusterScores:
        """Read what `to_dict` wrote."""
        confs = tuple(_counts(scores) for scores in fields["by_cluster"])
        return cls(fields["headline"], fields["of"], confs, tuple(fields.get("routed", ())))


@dataclass(frozen=True, eq=False)
class Scored:
    """Confusion matrices of one model: by domain, and by client if clients were scored."""

    space: LabelSpace
    conf_by_domain: Mapping[str, Conf_CC] = field(default_factory=dict)
    scored_on: tuple[str, ...] = ()  # names of the server's sets, or of the clients that answered
    missing: tuple[str, ...] = ()  # clients whose frames should have been scored too
    seen_domains: frozenset[str] | None = None  # that were trained on; None = unknown
    conf_by_client: Mapping[str, Conf_CC] = field(default_factory=dict)
    clients_on: str = ""  # which of their frames: "held-out frames" or "training frames"
    protocol: Protocol | None = None  # how it was scored; None = by a version without protocols
    conf_personal: Mapping[str, Conf_CC] = field(default_factory=dict)  # of each client's own model
    personal: str = ""  # how clients get those models: a name in federation.personal.PERSONAL
    clients_norms: str = "running"  # on the clients' frames
    clusters: ClusterScores | None = None  # if clusters of vehicles have their own models

    @cached_property
    def overall(self) -> Scores | None:
        """Scores over all domains; None if no domain was scored."""
        confs = self.conf_by_domain
        return Scores.of(sum_confs(confs), self.space) if confs else None

    @cached_property
    def by_domain(self) -> dict[str, Scores]:
        """Scores of each domain."""
        return score_domains(self.conf_by_domain, self.space)

    @cached_property
    def by_client(self) -> dict[str, Scores]:
        """Scores on each client's own frames."""
        return score_domains(self.conf_by_client, self.space)

    @cached_property
    def by_client_personal(self) -> dict[str, Scores]:
        """Scores of each client's personal model on the client's own frames."""
        return score_domains(self.conf_personal, self.space)

    @cached_property
    def by_side(self) -> dict[str, Scores]:
        """Scores of "seen" and "unseen" domains, if there are several and this is known."""
        if self.seen_domains is None or len(self.conf_by_domain) < 2:
            return {}
        sides = seen_unseen(self.conf_by_domain, self.seen_domains)
        return {side: Scores.of(conf_CC, self.space) for side, conf_CC in sides.items()}

    @property
    def norms(self) -> str:
        """The statistics with which batch norms were scored: see `norms.Norms`."""
        return "running" if self.protocol is None else self.protocol.norms

    @property
    def miou(self) -> float | None:
        """Mean IoU over all domains; None if nothing was scored, or no class has a union."""
        return None if self.overall is None else self.overall.to_dict()["miou"]

    @property
    def critical_miou(self) -> float | None:
        """Mean IoU of the safety-critical classes, like `miou`."""
        return None if self.overall is None else self.overall.to_dict()["critical_miou"]

    def with_clients(
        self, conf_by_client: Mapping[str, Conf_CC], on: str, norms: str = "running"
    ) -> Scored:
        """Add the scores on clients' own frames."""
        by_client = dict(conf_by_client)
        return replace(self, conf_by_client=by_client, clients_on=on, clients_norms=norms)

    def with_personal(self, conf_by_client: Mapping[str, Conf_CC], model: str) -> Scored:
        """Add the scores of clients' own models on the same frames."""
        return replace(self, conf_personal=dict(conf_by_client), personal=model)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: ratios for readers, and the counts they come from."""
        fields: dict[str, Any] = {}
        if self.overall is not None:
            named = {name: scores.to_dict() for name, scores in self.by_domain.items()}
            fields = {
                "scored_on": list(self.scored_on),
                "missing": list(self.missing),
                **self.overall.to_dict(),
                # A single domain is the whole, whose counts are given above.
                **({"by_domain": named} if len(named) > 1 else {"domain": next(iter(named))}),
                **{side: scores.to_dict()["miou"] for side, scores in self.by_side.items()},
            }
        if self.seen_domains is not None:
            fields["seen_domains"] = sorted(self.seen_domains & set(self.conf_by_domain))
        if self.clients_on:
            fields["by_client"] = {c: scores.to_dict() for c, scores in self.by_client.items()}
            fields["by_client_on"] = self.clients_on
            fields["by_client_norms"] = self.clients_norms
        if self.protocol is not None:
            fields["protocol"] = self.protocol.to_dict()
        if self.personal:
            personal = {c: scores.to_dict() for c, scores in self.by_client_personal.items()}
            fields["personal"] = {"model": self.personal, "by_client": personal}
        if self.clusters is not None:
            fields["clusters"] = self.clusters.to_dict(self.space)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], space: LabelSpace) -> Scored:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError, DataError: not such values, or of other classes.
        """
        if "by_domain" in fields:
            confs = {name: _counts(scores) for name, scores in fields["by_domain"].items()}
        else:
            confs = {fields["domain"]: _counts(fields)} if "domain" in fields else {}
        seen, protocol = fields.get("seen_domains"), fields.get("protocol")
        personal = fields.get("personal", {})
        return cls(
            space,
            confs,
            tuple(fields.get("scored_on", ())),
            tuple(fields.get("missing", ())),
            None if seen is None else frozenset(seen),
            {name: _counts(scores) for name, scores in fields.get("by_client", {}).items()},
            fields.get("by_client_on", ""),
            None if protocol is None else Protocol.from_dict(protocol),
            {name: _counts(scores) for name, scores in personal.get("by_client", {}).items()},
            personal.get("model", ""),
            fields.get("by_client_norms", "running"),
            ClusterScores.from_dict(fields["clusters"]) if "clusters" in fields else None,
        )


def _counts(scores: Mapping[str, Any]) -> Conf_CC:
    return np.array(scores["confusion"], dtype=np.int64)
