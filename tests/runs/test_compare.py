"""Runs side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.records import SPACE, record, scored

from fleetseg.config import Experiment
from fleetseg.evaluation.scores import Scores
from fleetseg.runs.compare import (
    ComparedRun,
    LocalScores,
    compared_run,
    local_scores,
    mean_run,
    miou_range,
)
from fleetseg.runs.run import Run


def run(miou: float | None, images: int, critical: float | None = None) -> Run:
    records = tuple(record(n, images_seen=images, steps=2, critical_path_steps=1) for n in (1, 2))
    scores = None if miou is None else scored(miou, critical=critical)
    return Run(Path("run"), Experiment(), "rounds", records, scores, "f" * 64)


def test_a_run_has_its_scores_and_its_effort() -> None:
    assert compared_run("a", run(0.5, 10, 0.25)) == ComparedRun("a", 0.5, 0.25, 20, 4, 2)
    assert compared_run("a", run(None, 10)) == ComparedRun("a", None, None, 20, 4, 2)


def test_a_mean_is_over_the_models_that_have_a_score() -> None:
    runs = [run(0.5, 10, 0.25), run(0.25, 15, 0.25), run(None, 11)]
    assert mean_run("three", runs) == ComparedRun("three", 0.375, 0.25, 24, 4, 2)
    assert mean_run("none", [run(None, 1)]).miou is None


def test_vehicles_alone() -> None:
    runs = {"a": run(0.25, 1), "b": run(0.75, 1), "c": run(None, 1)}
    assert local_scores(runs) == LocalScores(2, 0.5, "b", 0.75)
    assert local_scores({"c": runs["c"]}) is None


def test_a_range_leaves_out_who_has_no_figure() -> None:
    half, quarter = scored(0.5).overall, scored(0.25).overall
    nothing = Scores.of(np.zeros((2, 2), np.int64), SPACE)
    assert half is not None
    assert quarter is not None
    assert miou_range({"a": half, "b": nothing, "c": quarter}) == (0.25, 0.5)
    assert miou_range({"b": nothing}) is None
