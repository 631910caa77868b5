"""Figures that follow from round records."""

from __future__ import annotations

import json

from tests.records import SPACE, failed, record, scored

from fleetseg.runs.records import (
    Effort,
    RoundFacts,
    RunEnd,
    Traffic,
    effort,
    last_scored_round,
    traffic,
)

RECORDS = [
    record(1, scored=scored(0.5), bytes_up=100, bytes_down=1000),
    record(2, images_seen=5, steps=3, critical_path_steps=1, bytes_up=50, bytes_down=500),
]


def test_effort_and_traffic_add_up() -> None:
    assert effort(RECORDS) == Effort(images_seen=15, steps=7, critical_path_steps=3)
    assert traffic(RECORDS) == Traffic(bytes_up=150, bytes_down=1500)
    assert effort([]) == Effort(0, 0, 0)


def test_the_last_scored_round_need_not_be_the_last() -> None:
    assert last_scored_round(RECORDS) == 1
    assert last_scored_round(RECORDS[1:]) is None


def test_failures_are_counted_by_kind() -> None:
    kinds = ("late", "lost", "late", "abstained")
    one = record(
        3,
        accepted=("a",),
        loss=1.5,
        scored=scored(0.5, critical=0.25),
        failures=tuple(failed("b", kind) for kind in kinds),
        bytes_up=2_000_000,
        bytes_down=0,
    )
    facts = RoundFacts.of(one, 2.5)
    assert (facts.ok, facts.late, facts.refused, facts.lost, facts.abstained) == (1, 2, 0, 1, 1)
    assert (facts.loss, facts.miou, facts.critical_miou) == (1.5, 0.5, 0.25)
    assert (facts.mb_up, facts.mb_down, facts.seconds) == (2.0, 0.0, 2.5)


def test_a_record_without_updates_or_scores() -> None:
    facts = RoundFacts.of(record(accepted=(), loss=None), 1.0)
    assert (facts.loss, facts.miou, facts.critical_miou) == (None, None, None)


def test_an_end_is_read_as_it_was_written() -> None:
    end = RunEnd("target", 3, 12.5, scored(0.5, critical=0.25), 3, "f" * 64)
    back = RunEnd.from_dict(json.loads(json.dumps(end.to_dict())), SPACE)
    assert back.to_dict() == end.to_dict()
    assert back.scored is not None
    assert (back.scored.miou, back.scored.critical_miou) == (0.5, 0.25)
    assert RunEnd.from_dict(RunEnd("rounds", 3, 1.0, None, 0, "").to_dict(), SPACE).scored is None
