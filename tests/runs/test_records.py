"""Figures that follow from round records."""

from __future__ import annotations

from typing import Any

import pytest

from fleetseg.runs.records import (
    Effort,
    RoundFacts,
    Traffic,
    effort,
    last_scored_round,
    traffic,
)

RECORDS = [
    {
        "round": 1, "images_seen": 10, "steps": 4, "critical_path_steps": 2,
        "bytes_up": 100, "bytes_down": 1000, "scores": {},
    },
    {
        "round": 2, "images_seen": 5, "steps": 3, "critical_path_steps": 1,
        "bytes_up": 50, "bytes_down": 500,
    },
]  # fmt: skip


def test_effort_and_traffic_add_up() -> None:
    assert effort(RECORDS) == Effort(images_seen=15, steps=7, critical_path_steps=3)
    assert traffic(RECORDS) == Traffic(bytes_up=150, bytes_down=1500)
    assert effort([]) == Effort(0, 0, 0)


def test_the_last_scored_round_need_not_be_the_last() -> None:
    assert last_scored_round(RECORDS) == 1
    assert last_scored_round(RECORDS[1:]) is None


def test_failures_are_counted_by_kind() -> None:
    record = {
        "round": 3, "ok": ["a"], "loss": 1.5, "miou": 0.5, "scores": {"critical_miou": 0.25},
        "failures": [{"kind": kind} for kind in ("late", "lost", "late", "abstained")],
        "bytes_up": 2_000_000, "bytes_down": 0,
    }  # fmt: skip
    facts = RoundFacts.of(record, 2.5)
    assert (facts.ok, facts.late, facts.refused, facts.lost, facts.abstained) == (1, 2, 0, 1, 1)
    assert (facts.loss, facts.miou, facts.critical_miou) == (1.5, 0.5, 0.25)
    assert (facts.mb_up, facts.mb_down, facts.seconds) == (2.0, 0.0, 2.5)


@pytest.mark.parametrize("scores", [None, {}])
def test_a_record_without_updates_or_scores(scores: Any) -> None:
    record = {
        "round": 1, "failures": [], "ok": [], "loss": 0.0, "bytes_up": 0, "bytes_down": 0,
        "scores": scores,
    }  # fmt: skip
    facts = RoundFacts.of(record, 1.0)
    assert (facts.loss, facts.miou, facts.critical_miou) == (None, None, None)
