"""Weights & Biases: one run over all starts, each step's figures and picture under one step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.tracking import fakes

from fleetseg.tracking.wandb import open_tracker

IMAGE_HWC = np.zeros((4, 6, 3), np.uint8)


def test_a_run_is_told_what_it_is_and_given_figures_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs := fakes.wandb(monkeypatch)).clear()
    tracker = open_tracker(fakes.tracked(tmp_path))
    tracker.scalars(1, {"mIoU": 0.25, "IoU/car": 0.5})
    tracker.image(1, "scored frames", IMAGE_HWC)
    tracker.close()
    (run,) = runs
    assert run.given["project"] == "cars"
    assert run.given["name"] == "camvid-7"
    assert run.given["group"] == "camvid"
    assert run.given["dir"] == str(tmp_path)
    assert run.given["config"] == {"seed": 7, "training": {"lr": 0.1}}
    assert run.given["settings"].console == "off"  # the terminal is ours
    (step, figures), (picture_step, picture) = run.logged
    assert (step, figures) == (1, {"mIoU": 0.25, "IoU/car": 0.5})
    assert picture_step == 1
    assert picture["scored frames"].shape == (4, 6, 3)
    assert run.finished == 1
    assert tracker.where == "https://wandb.example/run"


def test_a_resumed_run_is_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = fakes.wandb(monkeypatch)
    for step in (0, 3):
        open_tracker(fakes.tracked(tmp_path, step)).close()
    assert {run.given["id"] for run in runs} == {"ab12cd34ef56ab78"}
    assert {run.given["resume"] for run in runs} == {"allow"}
