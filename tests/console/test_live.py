"""What a person sees of a run while it runs: a table, lines, or JSON."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console
from tests.records import failed, record, scored

from fleetseg.console import clock
from fleetseg.console.live import (
    Heading,
    LiveTable,
    Pace,
    plain_line,
    rounds_table,
    short_names,
    watching,
)
from fleetseg.federation.messages import Failure
from fleetseg.federation.records import RoundRecord
from fleetseg.runs.records import RoundFacts


def a_record(round_: int = 3, **changes: Any) -> RoundRecord:
    fields: dict[str, Any] = {
        "cohort": tuple("abcde"),
        "failures": (failed("c", "late"), failed("d", "refused"), failed("e", "lost")),
        "loss": 1.23456,
        "scored": scored(0.4567, critical=0.1234),
        "bytes_up": 12_340_000,
        "bytes_down": 2_000_000_000,
        "seconds": 99.0,
    }
    return record(round_, **{**fields, **changes})


def drawn(renderable: object, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=False)
    console.print(renderable)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_round_as_one_line() -> None:
    line = plain_line(RoundFacts.of(a_record(), 2.5), 10, 75.0)
    assert line == (
        "round 3/10  2 ok, 1 late, 1 refused, 1 lost  loss 1.235  mIoU 0.457 (critical 0.123)"
        "  MB up 12.3 down 2000.0  2.5 s  left 1:15"
    )


def test_a_round_without_updates_or_scores() -> None:
    lost = a_record(accepted=(), scored=None, loss=None)
    line = plain_line(RoundFacts.of(lost, 1.0), 10, None)
    assert line == "round 3/10  0 ok, 1 late, 1 refused, 1 lost  MB up 12.3 down 2000.0  1.0 s"


def test_the_time_left_goes_by_the_rounds_seen() -> None:
    now = [0.0]
    pace = Pace(10, now=lambda: now[0])
    assert pace.left_s(0, inside=True) is None
    for seconds in (4.0, 6.0):
        pace.open()
        now[0] += seconds
        assert pace.close() == seconds
    assert pace.left_s(2, inside=False) == pytest.approx(8 * 5.0)
    pace.open()
    now[0] += 2.0
    assert pace.left_s(2, inside=True) == pytest.approx(8 * 5.0 - 2.0)
    now[0] += 100.0  # a round that takes longer than any before
    assert pace.left_s(2, inside=True) == pytest.approx(7 * 5.0)


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_into_a_terminal(width: int) -> None:
    rows = [RoundFacts.of(a_record(number), 123.4) for number in range(90, 101)]
    lines = drawn(rounds_table(rows, 100), width)
    assert len(lines) == 2 + len(rows)
    assert max(len(line) for line in lines) <= 80
    assert " ".join(lines[0].split()) == "round ok late ref. lost loss mIoU crit. MB up down s"
    assert " ".join(lines[2].split()) == "90/100 2 1 1 1 1.235 0.457 0.123 12.3 2,000 123"


def test_the_live_table_says_who_trains_and_stays_within_the_screen() -> None:
    table = LiveTable(lambda: Heading("title " * 30, 2), total_rounds=50, height=24)
    started: list[bool] = []
    watcher = table.watcher(on_start=lambda: started.append(True))
    watcher.status("starting 2 workers")
    assert "starting 2 workers" in drawn(table, 80)[-1]
    cohort = [f"fleet-vehicle-{i}" for i in range(5)]
    for round_ in range(1, 31):
        watcher.round_opened(round_, cohort)
        watcher.replied(Failure(cohort[1], "late", "deadline"), None)
        lines = drawn(table, 80)
        assert "training: 0, 2" in lines[-1]
        assert "1 of 5 vehicles back" in lines[-1]
        watcher.round_closed(a_record(round_))
    assert started == [True]
    assert len(lines) <= 24
    assert max(len(line) for line in lines) <= 80
    table.over = True
    assert drawn(table, 80)[-1].split()[0] == "30/50"


def test_a_round_that_asks_nobody_is_drawn() -> None:
    table = LiveTable(lambda: Heading("title", 2), total_rounds=5, height=24)
    watcher = table.watcher(on_start=lambda: None)
    watcher.round_opened(1, ())
    assert "0 of 0 vehicles back, scoring and saving" in drawn(table, 80)[-1]


def test_names_lose_what_they_share() -> None:
    cohort = ["camvid-0001TP-1", "camvid-0001TP-2"]
    assert short_names(cohort, cohort[1:]) == ["2"]
    assert short_names(["ant", "antler"], ["antler"]) == ["antler"]
    assert short_names(["alone-1"], ["alone-1"]) == ["alone-1"]
    assert short_names(["camvid", "camvid-2"], ["camvid", "camvid-2"]) == ["camvid", "camvid-2"]


def test_json_is_one_object_per_round_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(
        "json", Console(), heading=lambda: Heading("never"), total_rounds=2
    ) as watcher:  # fmt: skip
        watcher.round_opened(1, ["a"])
        watcher.round_closed(a_record(1))
        watcher.round_closed(a_record(2))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2]


def test_durations() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3600)] == ["0:00", "1:00", "1:01", "1:00:00"]
