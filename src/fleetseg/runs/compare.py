"""Runs side by side: their scores and their cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleetseg.evaluation.scores import Scores
from fleetseg.runs.records import effort
from fleetseg.runs.run import Run


@dataclass(frozen=True)
class ComparedRun:
    """One run in a comparison, or the mean of several."""

    name: str
    miou: float | None
    critical_miou: float | None
    images_seen: int | None
    steps: int | None  # gradient steps, all vehicles together
    critical_path_steps: int | None  # gradient steps one after another


@dataclass(frozen=True)
class LocalScores:
    """Scores of vehicles that trained alone; each is a model of its own."""

    num_scored: int
    mean_miou: float
    best_client: str
    best_miou: float


def compared_run(name: str, run: Run) -> ComparedRun:
    """Extract from a run what comparisons show."""
    spent = effort(run.records)
    return ComparedRun(
        name,
        run.miou,
        run.critical_miou,
        spent.images_seen,
        spent.steps,
        spent.critical_path_steps,
    )


def mean_run(name: str, runs: Sequence[Run]) -> ComparedRun:
    """Return the means over several models, each scored and trained on its own."""
    rows = [compared_run(name, run) for run in runs]
    return ComparedRun(
        name,
        _mean([row.miou for row in rows]),
        _mean([row.critical_miou for row in rows]),
        _rounded_mean([row.images_seen for row in rows]),
        _rounded_mean([row.steps for row in rows]),
        _rounded_mean([row.critical_path_steps for row in rows]),
    )


def local_scores(runs: Mapping[str, Run]) -> LocalScores | None:
    """Summarise vehicles that trained alone; None if nothing was scored."""
    scored = {client: run.miou for client, run in runs.items() if run.miou is not None}
    if not scored:
        return None
    best = max(scored, key=lambda client: scored[client])
    return LocalScores(len(scored), sum(scored.values()) / len(scored), best, scored[best])


def miou_range(by_client: Mapping[str, Scores]) -> tuple[float, float] | None:
    """Return the lowest and the highest mIoU of one model on several clients' frames."""
    known = [scores.miou for scores in by_client.values() if not math.isnan(scores.miou)]
    return (min(known), max(known)) if known else None


def _mean(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else None


def _rounded_mean(figures: Sequence[int | None]) -> int | None:
    mean = _mean(figures)
    return None if mean is None else round(mean)
