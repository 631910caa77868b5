"""The record of a round: a value that is written as a line of rounds.jsonl and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fleetseg.data.labels import LabelSpace
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.collect import RoundCollector
from fleetseg.federation.engine import Meter
from fleetseg.federation.messages import Failure

_PLAIN = (
    "round", "quorum", "loss", "steps", "critical_path_steps", "images_seen", "bytes_down",
    "bytes_up", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class RoundRecord:
    """One round: which clients took part, what it cost, and its model's scores."""

    round: int
    cohort: tuple[str, ...]  # clients that were asked
    accepted: tuple[str, ...]  # clients whose update came in time and passed all checks
    failures: tuple[Failure, ...]  # of the other clients
    quorum: bool  # enough were accepted: the model has changed, if anybody was asked
    loss: float | None  # mean training loss, weighted by steps; None if nobody was accepted
    steps: int  # gradient steps, all clients together
    critical_path_steps: int  # gradient steps of the client that took the most
    images_seen: int
    bytes_down: int
    bytes_up: int
    seconds: float  # by the engine's clock
    scored: Scored | None = None  # None = this round's model was not scored
    unscored: str = ""  # why it was not scored though it should have been
    clusters: Mapping[str, int] = field(
        default_factory=dict
    )  # of the accepted clients, if there are clusters
    training_seconds: float | None = None  # until the last reply, without scoring
    # Of the clients asked whose claims were capped, the images that they counted for.
    cut: Mapping[str, int] = field(default_factory=dict)
    lineage: str = ""  # of the model that was sent: see `lineage`
    # Norms of changes per step, including those refused for their norm; empty if not measured.
    step_norms: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        collector: RoundCollector,
        *,
        round_: int,
        quorum: bool,
        sent: Meter,
        lineage: str = "",
    ) -> RoundRecord:
        """Make the record of a finished round."""
        accepted = collector.accepted
        return cls(
            round=round_,
            cohort=tuple(sorted(collector.cohort.asked)),
            accepted=tuple(sorted(a.client_id for a in accepted)),
            failures=tuple(sorted(collector.failures, key=lambda f: f.client_id)),
            quorum=quorum,
            loss=collector.mean_loss(),
            steps=sum(a.num_steps for a in accepted),
            critical_path_steps=max((a.num_steps for a in accepted), default=0),
            images_seen=sum(a.images_seen for a in accepted),
            bytes_down=sent.bytes_down,
            bytes_up=sent.bytes_up,
            seconds=round(sent.seconds, 3),
            clusters=dict(sorted(collector.clusters_of.items())),
            training_seconds=round(sent.seconds, 3),
            cut=collector.cut,
            lineage=lineage,
            step_norms=dict(sorted(collector.step_norms.items())),
        )

    def with_cost(self, sent: Meter) -> RoundRecord:
        """Return the record with the full cost of its round, including scoring on clients."""
        return replace(
            self,
            bytes_down=sent.bytes_down,
            bytes_up=sent.bytes_up,
            seconds=round(sent.seconds, 3),
        )

    @property
    def miou(self) -> float | None:
        """Mean IoU of the round's model; None if it was not scored."""
        return None if self.scored is None else self.scored.miou

    @property
    def was_scored(self) -> bool:
        """Whether scoring was attempted; a run may have ended before it."""
        return self.scored is not None or bool(self.unscored)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in _PLAIN}
        fields["cohort"], fields["ok"] = list(self.cohort), list(self.accepted)
        fields["failures"] = [
            {"client": f.client_id, "kind": f.kind, "reason": f.reason, "detail": f.detail}
            for f in self.failures
        ]
        if self.scored is not None:
            fields |= {"scores": self.scored.to_dict(), "miou": self.miou}
        if self.unscored:
            fields["unscored"] = self.unscored
        if self.clusters:
            fields["clusters"] = dict(self.clusters)
        if self.cut:
            fields["cut"] = dict(self.cut)
        if self.training_seconds is not None:
            fields["training_seconds"] = self.training_seconds
        if self.lineage:
            fields["lineage"] = self.lineage
        if self.step_norms:
            fields["step_norms"] = dict(self.step_norms)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], space: LabelSpace) -> RoundRecord:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError, DataError: `fields` is not such a record.
        """
        scores = fields.get("scores")
        return cls(
            **{name: fields[name] for name in _PLAIN},
            cohort=tuple(fields["cohort"]),
            accepted=tuple(fields["ok"]),
            failures=tuple(
                Failure(f["client"], f["kind"], f["reason"], f["detail"])
                for f in fields["failures"]
            ),
            scored=None if scores is None else Scored.from_dict(scores, space),
            unscored=fields.get("unscored", ""),
            clusters=fields.get("clusters", {}),
            training_seconds=fields.get("training_seconds"),
            cut=fields.get("cut", {}),
            lineage=fields.get("lineage", ""),
            step_norms=fields.get("step_norms", {}),
        )
