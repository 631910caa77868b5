"""MLflow: a run is found again by its tag, and no step is logged twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tracking import fakes

from fleetseg.config import Experiment
from fleetseg.tracking.mlflow import open_tracker

IMAGE_HWC = np.zeros((4, 6, 3), np.uint8)


def logged(run: object) -> list[tuple[str, float, int]]:
    return [(m.key, m.value, m.step) for m in run.metrics]  # type: ignore[attr-defined]


def test_a_run_is_told_what_it_is_and_given_figures_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fakes.mlflow(monkeypatch)
    settings = Experiment().model_dump(mode="json")  # more than one request takes
    tracker = open_tracker(fakes.tracked(tmp_path, settings=settings))
    tracker.scalars(1, {"seconds": 3.0, "mIoU": 0.25, "IoU/Fußweg": 0.5})
    tracker.image(1, "scored frames", IMAGE_HWC)
    tracker.close()
    assert server.experiments == ["cars"]
    (run,) = server.runs
    assert run.info.run_name == "camvid-7"
    assert run.tags["fleetseg.group"] == "camvid"
    assert run.params["training.lr"] == str(Experiment().training.lr)
    assert len(run.params) > 100
    assert max(map(len, run.params.values())) <= 500
    # What says that a step is there is the last of it.
    assert logged(run) == [("mIoU", 0.25, 1), ("IoU/Fu_df_weg", 0.5, 1), ("seconds", 3.0, 1)]
    assert run.images == [(1, "scored frames", (4, 6, 3))]
    assert run.status == "FINISHED"


def test_a_resumed_run_goes_on_and_ignores_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash may come between a round that is logged and the note that it is."""
    server = fakes.mlflow(monkeypatch)
    first = open_tracker(fakes.tracked(tmp_path))
    for step in (1, 2):
        first.scalars(step, {"seconds": 1.0})
    again = open_tracker(fakes.tracked(tmp_path, step=1))
    (run,) = server.runs
    assert run.status == "RUNNING"
    for step in (2, 3):
        again.scalars(step, {"seconds": 1.0})
        again.image(step, "scored frames", IMAGE_HWC)
    assert [step for _, _, step in logged(run)] == [1, 2, 3]
    assert [step for step, _, _ in run.images] == [3]
    open_tracker(fakes.tracked(tmp_path, run="other"))
    assert len(server.runs) == 2
    assert server.experiments == ["cars"]
