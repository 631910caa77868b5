"""Figures that follow from the records of a run's rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]
"""One line of rounds.jsonl."""


@dataclass(frozen=True)
class RoundFacts:
    """What is shown of one round; `seconds` are of the clock of whoever shows it."""

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
    def of(cls, record: Record, seconds: float) -> RoundFacts:
        """Take the facts out of a round's record."""
        failed = Counter(failure["kind"] for failure in record["failures"])
        return cls(
            round=record["round"],
            ok=len(record["ok"]),
            late=failed["late"],
            refused=failed["refused"],
            lost=failed["lost"],
            abstained=failed["abstained"],
            loss=record["loss"] if record["ok"] else None,
            miou=record.get("miou"),
            critical_miou=(record.get("scores") or {}).get("critical_miou"),
            mb_up=record["bytes_up"] / 1e6,
            mb_down=record["bytes_down"] / 1e6,
            seconds=seconds,
        )


@dataclass(frozen=True)
class Effort:
    """What was trained: sums over rounds and clients."""

    images_seen: int
    steps: int  # gradient steps, all clients together
    critical_path_steps: int  # gradient steps one after another


@dataclass(frozen=True)
class Traffic:
    """What was sent, in bytes."""

    bytes_up: int  # from clients to the server
    bytes_down: int


def effort(records: Sequence[Record]) -> Effort:
    """Sum up what a run's rounds trained."""
    return Effort(
        images_seen=sum(r["images_seen"] for r in records),
        steps=sum(r["steps"] for r in records),
        critical_path_steps=sum(r["critical_path_steps"] for r in records),
    )


def traffic(records: Sequence[Record]) -> Traffic:
    """Sum up what a run's rounds sent."""
    return Traffic(
        bytes_up=sum(r["bytes_up"] for r in records),
        bytes_down=sum(r["bytes_down"] for r in records),
    )


def last_scored_round(records: Sequence[Record]) -> int | None:
    """Return the newest round whose model has scores; None if there is none."""
    return max((r["round"] for r in records if "scores" in r), default=None)
