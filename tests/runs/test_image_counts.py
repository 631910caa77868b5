"""What each frame of the server's sets added to the newest score: kept, read back, in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fleetseg.clients import EvaluationSet
from fleetseg.data.sample import ScoredPairs
from fleetseg.runs.image_counts import (
    FILE,
    ImageCounts,
    blocks,
    keep_counts,
    read_counts,
)

PAIR = (np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8))
CONF = np.array([[5, 1], [2, 4]])


def part(*domains: str) -> EvaluationSet:
    return EvaluationSet("test", ScoredPairs([PAIR] * len(domains), domains))


def test_ten_frames_that_follow_each_other_are_a_block_and_no_block_crosses_a_drive() -> None:
    day, night = ["day"] * 12, ["night"] * 3
    assert blocks([part(*day, *night)]).tolist() == [0] * 10 + [1] * 2 + [2] * 3
    assert blocks([part("day"), part("day")]).tolist() == [0, 1]  # of two sets


def test_every_frame_is_told_at_its_own_place() -> None:
    sets = [part("day"), part("day", "night")]
    counts = ImageCounts.empty(3, sets, 2)
    first, second = counts.listeners(sets)
    second(1, CONF)
    first(0, 2 * CONF)
    assert counts.parts_N3C.tolist() == [
        [[10, 8], [12, 12], [14, 10]], [[0, 0], [0, 0], [0, 0]], [[5, 4], [6, 6], [7, 5]]
    ]  # fmt: skip
    assert counts.parts_U3C.shape == (3, 3, 2)


def counts() -> ImageCounts:
    sets = [part("day", "day")]
    made = ImageCounts.empty(3, sets, 2)
    made.listeners(sets)[0](0, CONF)
    return made


def test_they_are_read_as_they_were_kept(tmp_path: Path) -> None:
    keep_counts(tmp_path, counts())
    again = read_counts(tmp_path)
    assert again is not None
    assert again.round == 3
    assert again.same_frames(counts())
    assert np.array_equal(again.parts_N3C, counts().parts_N3C)
    assert again.parts_U3C[0].tolist() == [[5, 4], [6, 6], [7, 5]]


@pytest.mark.parametrize("damage", ["nothing", "half", "text", "shape"])
def test_what_is_damaged_or_not_there_is_nothing(tmp_path: Path, damage: str) -> None:
    path = tmp_path / FILE
    if damage != "nothing":
        keep_counts(tmp_path, counts())
    if damage == "half":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "shape":
        keep_counts(tmp_path, ImageCounts(3, counts().parts_N3C, np.array([0, 5])))
    assert read_counts(tmp_path) is None
