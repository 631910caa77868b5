"""Event files, read back by TensorBoard's own reader."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tracking import fakes

from fleetseg.tracking.tensorboard import open_tracker

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def steps(events: list) -> list[int]:
    return [event.step for event in events]


def test_figures_and_pictures_are_read_back(tmp_path: Path) -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    tracker = open_tracker(fakes.tracked(tmp_path))
    tracker.scalars(1, {"mIoU": 0.25, "IoU/car": 0.5})
    tracker.scalars(2, {"mIoU": 0.75})
    tracker.image(2, "scored frames", image_HWC)
    found = read(tmp_path)  # while the run goes on: every round is flushed
    assert sorted(found.Tags()["scalars"]) == ["IoU/car", "mIoU"]
    assert [(e.step, e.value) for e in found.Scalars("mIoU")] == [(1, 0.25), (2, 0.75)]
    (picture,) = found.Images("scored frames")
    assert (picture.step, picture.height, picture.width) == (2, 8, 12)
    encoded = io.BytesIO(picture.encoded_image_string)
    assert np.array_equal(np.asarray(Image.open(encoded)), image_HWC)
    tracker.close()


def test_what_a_crash_left_past_the_last_step_is_not_there_twice(tmp_path: Path) -> None:
    first = open_tracker(fakes.tracked(tmp_path))
    for step in (1, 2, 3):
        first.scalars(step, {"mIoU": 0.5})
    with open(next(tmp_path.glob("events*")), "ab") as torn:
        torn.write(b"\x07half a record")
    first.close()
    again = open_tracker(fakes.tracked(tmp_path, step=1))
    for step in (2, 3, 4):
        again.scalars(step, {"mIoU": 0.5})
    again.close()
    assert steps(read(tmp_path).Scalars("mIoU")) == [1, 2, 3, 4]
