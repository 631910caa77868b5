"""Squeezed images are told once for each source, with a size that keeps their aspect ratio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fleetseg.clients import open_fleet_data, open_server_data
from fleetseg.config import Experiment, SourceConfig
from fleetseg.data.aspect import aspect_note, aspect_off, suggested_size
from fleetseg.data.check import check, report_lines
from fleetseg.data.sources import open_source


def test_a_note_has_the_count_the_sizes_the_share_and_the_cure() -> None:
    counts = {(1024, 2048): 7, (1000, 2000): 2, (480, 640): 5}
    assert aspect_note("cityscapes/val", counts, (192, 256)) == (
        "cityscapes/val: 9 of 14 images are squeezed to data.size = [192, 256] from 1024 x 2048 "
        "(height x width) and 1 other size, aspect ratio off by 50%: set data.size = [160, 320]"
    )


@pytest.mark.parametrize(
    ("image_hw", "told"),
    [((360, 480), False), ((350, 480), False), ((335, 480), True), ((480, 360), True)],
)
def test_a_few_percent_are_not_worth_a_note(image_hw: tuple[int, int], told: bool) -> None:
    assert (aspect_note("x", {image_hw: 1}, (192, 256)) is not None) == told
    assert aspect_note("x", {}, (192, 256)) is None


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.integers(32, 4000)] * 4))
def test_the_suggested_size_keeps_the_aspect_ratio_and_the_effort(
    sides: tuple[int, int, int, int],
) -> None:
    image_hw, size_hw = (sides[0], sides[1]), (sides[2], sides[3])
    good = suggested_size(image_hw, size_hw)
    assert min(good) >= 1
    if aspect_off(image_hw, (1, 1)) < 4:
        assert aspect_off(image_hw, good) <= 0.05
        assert 0.5 < good[0] * good[1] / (size_hw[0] * size_hw[1]) < 2
        assert aspect_note("x", {image_hw: 1}, good) is None  # the cure cures


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Three frames to train on and two to score on, twice as wide as high."""
    for split, count in (("train", 3), ("val", 2)):
        for side in ("images", "masks"):
            (tmp_path / "wide" / split / side).mkdir(parents=True)
        for i in range(count):
            image_HWC = np.full((32, 64, 3), 10 * i + count, np.uint8)
            label_HW = np.zeros((32, 64), np.uint8)
            Image.fromarray(image_HWC).save(tmp_path / "wide" / split / "images" / f"{i}.png")
            Image.fromarray(label_HW).save(tmp_path / "wide" / split / "masks" / f"{i}.png")
    (tmp_path / "wide" / "classes.toml").write_text('space = "camvid11"')
    return tmp_path / "wide"


def test_run_and_check_say_it_once_for_each_source(wide: Path, tmp_path: Path) -> None:
    data = {
        "size": [48, 64],
        "cache": str(tmp_path / "cache"),
        "sources": [{"kind": "folder", "root": str(wide)}],
        "evaluation": [{"kind": "folder", "root": str(wide), "split": "val"}],
    }
    scored = {"on_clients": True}
    experiment = Experiment.model_validate({"data": data, "evaluation": scored})
    told = [note for note in open_fleet_data(experiment).notes if "squeezed" in note]
    assert [note.split(" images")[0] for note in told] == ["wide/train: 3 of 3", "wide/val: 2 of 2"]
    assert all("off by 50%: set data.size = [" in note for note in told)
    assert [n for n in open_server_data(experiment).notes if "squeezed" in n] == told[1:]
    report = check(open_source(SourceConfig(kind="folder", root=str(wide), split="val")))
    (line,) = [line for line in report_lines(report) if "squeezed" in line]
    assert line.startswith("note: wide: 2 of 2 images are squeezed to the default data.size = [192")
    fitting = experiment.model_copy(
        update={"data": experiment.data.model_copy(update={"size": (32, 64)})}
    )
    assert not [note for note in open_fleet_data(fitting).notes if "squeezed" in note]
