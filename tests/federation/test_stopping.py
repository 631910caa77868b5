"""When a run is over: targets, patience, time and megabytes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.records import record, scored

from fleetseg.config import Experiment, FederationConfig, StopConfig
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.stopping import stop_reason


def experiment(**stop: Any) -> Experiment:
    return Experiment(federation=FederationConfig(rounds=10), stop=StopConfig(**stop))


def records(*mious: float | None) -> list[RoundRecord]:
    return [
        record(
            n,
            seconds=30.0,
            bytes_down=400_000,
            bytes_up=100_000,
            scored=None if miou is None else scored(miou),
        )
        for n, miou in enumerate(mious, 1)
    ]


def reason(log: list[RoundRecord], **stop: Any) -> str | None:
    return stop_reason(experiment(**stop), len(log), log)


def test_nothing_to_stop_for() -> None:
    assert reason([]) is None
    assert reason(records(0.9, 0.9, 0.9)) is None


def test_rounds() -> None:
    assert reason(records(*[0.1] * 9)) is None
    assert reason(records(*[0.1] * 10)) == "rounds"


def test_target_needs_the_last_score() -> None:
    assert reason(records(0.4, 0.5), target_miou=0.5) == "target"
    assert reason(records(0.5, None), target_miou=0.5) == "target"
    assert reason(records(0.6, 0.4), target_miou=0.5) is None
    assert reason(records(None, None), target_miou=0.5) is None
    assert reason([], target_miou=0.5) is None


def test_target_goes_before_rounds() -> None:
    assert reason(records(*[0.9] * 10), target_miou=0.5) == "target"


@pytest.mark.parametrize(
    ("mious", "expected"),
    [
        ((0.1, 0.2, 0.3), None),
        ((0.1, 0.3, 0.3), None),
        ((0.1, 0.3, 0.3, 0.2), "plateau"),
        ((0.3, 0.304, 0.308), "plateau"),  # gains below min_gain over the best are none
        ((0.3, 0.305, 0.311), None),  # 0.311 gains enough on 0.3
        ((0.3, None, None, 0.2), None),  # rounds without a score do not count
        ((0.3, None, 0.3, None, 0.2), "plateau"),
    ],
)
def test_plateau(mious: tuple[float | None, ...], expected: str | None) -> None:
    assert reason(records(*mious), patience=2, min_gain=0.01) == expected


def test_time() -> None:
    assert reason(records(0.1), minutes=1) is None
    assert reason(records(0.1, 0.1), minutes=1) == "time"


def test_megabytes_up_and_down_together() -> None:
    assert reason(records(0.1), megabytes=1) is None
    assert reason(records(0.1, 0.1), megabytes=1) == "megabytes"


def on(clients: str, miou: float, missing: str = "") -> RoundRecord:
    return record(scored=scored(miou, on=clients, missing=missing))


def test_a_score_without_a_hard_client_reaches_no_target() -> None:
    log = [on("abc", 0.33), on("ab", 1.0, missing="c")]
    assert reason(log, target_miou=0.9) is None
    assert reason([*log, on("abc", 0.95)], target_miou=0.9) == "target"


def test_a_client_that_never_came_back_is_missing_still() -> None:
    """It may have left for good: then the scores are of another set of frames."""
    log = [on("abc", 0.33), on("ab", 1.0), on("ab", 1.0)]
    assert reason(log, target_miou=0.9) is None


def test_patience_counts_comparable_scores_only() -> None:
    easy = [on("a", 0.9, missing="b")]
    log = [on("ab", 0.30), *easy, on("ab", 0.31), *easy, on("ab", 0.32)]
    assert reason(log, patience=2) is None
    assert reason([*log, on("ab", 0.32), on("ab", 0.32)], patience=2) == "plateau"


def test_a_client_that_joins_makes_earlier_scores_another_set() -> None:
    log = [on("a", 0.5), on("a", 0.5), on("ab", 0.4), on("ab", 0.41)]
    assert reason(log, patience=2) is None
