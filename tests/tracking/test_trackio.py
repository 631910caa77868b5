"""trackio: one run over all starts, and nothing of what it prints on standard output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tracking import fakes

from fleetseg.tracking.trackio import open_tracker


def test_a_run_is_given_figures_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = fakes.trackio(monkeypatch)
    tracker = open_tracker(fakes.tracked(tmp_path))
    tracker.scalars(2, {"mIoU": 0.25})
    tracker.image(2, "scored frames", np.zeros((4, 6, 3), np.uint8))
    tracker.close()
    (run,) = runs
    assert run.given["project"] == "cars"
    assert run.given["group"] == "camvid"
    assert run.given["config"] == {"seed": 7, "training": {"lr": 0.1}}
    assert run.logged[0] == (2, {"mIoU": 0.25})
    step, picture = run.logged[1]
    assert (step, picture["scored frames"].shape) == (2, (4, 6, 3))
    assert run.finished == 1
    printed = capsys.readouterr()
    assert printed.out == ""  # --json writes lines there
    assert "initialized" in printed.err


def test_a_resumed_run_has_its_name_and_another_run_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = fakes.trackio(monkeypatch)
    for changes in ({}, {"step": 3}, {"run": "ffffffffffff"}):
        open_tracker(fakes.tracked(tmp_path, **changes)).close()
    names = [run.given["name"] for run in runs]
    assert names == ["camvid-7-ab12cd", "camvid-7-ab12cd", "camvid-7-ffffff"]
    assert {run.given["resume"] for run in runs} == {"allow"}
