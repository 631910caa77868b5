"""The end of a run, and figures that follow from the records of its rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleetseg.data.labels import LabelSpace
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.stopping import ENDS


@dataclass(frozen=True)
class RunEnd:
    """The last line of a run's log."""

    reason: str
    round: int  # the last committed round
    seconds: float  # since this start of the run
    scored: Scored | None  # None = nothing was scored
    scored_round: int  # the round of that model; 0 if nothing was scored
    model_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "reason": self.reason,
            "round": self.round,
            "seconds": self.seconds,
            "scored_round": self.scored_round,
            "scores": self.scored.to_dict() if self.scored else {},
            "model_sha256": self.model_sha256,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], space: LabelSpace) -> RunEnd:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError, DataError: the fields are not a run's end.
        """
        return cls(
            fields["reason"],
            fields["round"],
            fields["seconds"],
            Scored.from_dict(fields["scores"], space) if fields["scores"] else None,
            fields["scored_round"],
            fields["model_sha256"],
        )


def is_complete(end: RunEnd | None) -> bool:
    """Say whether a run has reached an end that its experiment provides for."""
    return end is not None and end.reason in ENDS


@dataclass(frozen=True)
class RoundFacts:
    """The displayed facts of one round; `seconds` are by the clock of the caller."""

    round: int
    ok: int
    late: int
    refused: int
    lost: int
    abstained: int
    loss: float | None
    miou: float | None
    critical_miou: float | None
    mb_up: float
    mb_down: float
    seconds: float

    @classmethod
    def of(cls, record: RoundRecord, seconds: float) -> RoundFacts:
        """Extract the facts from a round's record."""
        failed = Counter(failure.kind for failure in record.failures)
        return cls(
            round=record.round,
            ok=len(record.accepted),
            late=failed["late"],
            refused=failed["refused"],
            lost=failed["lost"],
            abstained=failed["abstained"],
            loss=record.loss,
            miou=record.miou,
            critical_miou=record.scored.critical_miou if record.scored else None,
            mb_up=record.bytes_up / 1e6,
            mb_down=record.bytes_down / 1e6,
            seconds=seconds,
        )


@dataclass(frozen=True)
class Effort:
    """The amount of training: sums over rounds and clients."""

    images_seen: int
    steps: int  # gradient steps, all clients together
    critical_path_steps: int  # gradient steps one after another


@dataclass(frozen=True)
class Traffic:
    """The amount of communication, in bytes."""

    bytes_up: int  # from clients to the server
    bytes_down: int


def effort(records: Sequence[RoundRecord]) -> Effort:
    """Sum the training of a run's rounds."""
    return Effort(
        images_seen=sum(r.images_seen for r in records),
        steps=sum(r.steps for r in records),
        critical_path_steps=sum(r.critical_path_steps for r in records),
    )


def traffic(records: Sequence[RoundRecord]) -> Traffic:
    """Sum the communication of a run's rounds."""
    return Traffic(
        bytes_up=sum(r.bytes_up for r in records),
        bytes_down=sum(r.bytes_down for r in records),
    )


def last_scored_round(records: Sequence[RoundRecord]) -> int | None:
    """Return the newest round whose model has scores; None if there is none."""
    return max((r.round for r in records if r.scored), default=None)
