"""How far a sweep is: counts, rounds, and the time that is left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleetseg.config import Experiment, FederationConfig
from fleetseg.runs.sweep_plan import PlannedRun
from fleetseg.runs.sweep_state import RunStatus, TimeLeft, counts

RUN = PlannedRun("a_seed0", "a", Experiment(federation=FederationConfig(rounds=6)))


def test_rounds_left_are_those_of_runs_that_may_still_run() -> None:
    status = RunStatus(RUN, rounds_done=2)
    assert [replace(status, state=state).rounds_left for state in
            ("waiting", "running", "finished", "failed", "interrupted")] == [4, 4, 0, 0, 0]  # type: ignore[arg-type]  # fmt: skip
    assert counts({"a": status, "b": status, "c": replace(status, state="failed")}) == {
        "waiting": 2,
        "failed": 1,
    }


def test_the_time_left_is_shared_by_the_jobs_but_for_the_longest_run() -> None:
    clock = [0.0]
    left = TimeLeft(2, lambda: clock[0])
    status = RunStatus(RUN)
    assert left.seconds([status]) is None
    left.begin("a")
    left.begin("b")
    for name, now in (("a", 10.0), ("b", 20.0), ("a", 40.0)):  # rounds of 10, 20 and 30 s
        clock[0] = now
        left.close_round(name)
    four = replace(status, rounds_done=2)
    assert left.seconds([four, four, four, four]) == pytest.approx(20 * 16 / 2)
    assert left.seconds([four]) == pytest.approx(20 * 4)
    assert left.seconds([replace(four, state="finished")]) == 0.0
