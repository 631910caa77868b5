"""Pictures for trackers show the server's frames only, as the run has kept them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.records import SPACE, record, scored

from fleetseg.clients import HELD_OUT
from fleetseg.evaluation.pictures import contact_sheet
from fleetseg.runs.kept_frames import FOLDER, Frame, Seen, ids_of, ids_picture, photo_picture
from fleetseg.runs.tracked_pictures import kept_picture

TRUTH_HW = np.zeros((12, 16), np.uint8)
SEEN_HW = np.tile(np.array([0, 1], np.uint8), (12, 8))
PHOTO = Image.fromarray(np.full((12, 16, 3), 120, np.uint8))
SCORED = scored(0.5)


def keep(folder: Path, sets: list[str], rounds: list[int]) -> Path:
    """Write what a run keeps of one frame for each set."""
    pictures = folder / FOLDER
    pictures.mkdir(parents=True)
    frames = [
        Frame(f"{name}/{k}", name, "day", k, 16, 12, photo_picture(PHOTO), ids_picture(TRUTH_HW))
        for k, name in enumerate(sets)
    ]
    (pictures / "frames.json").write_text(json.dumps({"frames": [asdict(f) for f in frames]}))
    for number in rounds:
        seen = [asdict(Seen(ids_picture(SEEN_HW), 0.5, ())) for _ in sets]
        path = pictures / f"round-{number:06d}.json"
        path.write_text(json.dumps({"round": number, "frames": seen}))
    return folder


def test_a_picture_shows_frames_their_truth_and_what_the_round_sees(tmp_path: Path) -> None:
    show = kept_picture(keep(tmp_path, ["val"] * 5, [1, 2]), SPACE, 2)
    shown_HWC = show(record(2, scored=SCORED))
    assert np.array_equal(ids_of(ids_picture(SEEN_HW)), SEEN_HW)
    photo_HWC = np.full((12, 16, 3), 120, np.uint8)  # of one colour, which WebP keeps
    row = (photo_HWC, TRUTH_HW, {"round 2": SEEN_HW})
    titles = ["val/0: 50.0% wrong", "val/4: 50.0% wrong"]
    assert np.array_equal(shown_HWC, np.asarray(contact_sheet([row, row], titles, SPACE)))


@pytest.mark.parametrize("number", [1, 3])
def test_there_is_none_of_rounds_that_were_not_kept_or_not_scored(
    tmp_path: Path, number: int
) -> None:
    show = kept_picture(keep(tmp_path, ["val"], [1]), SPACE, number)
    assert show(record(1, scored=SCORED)) is not None
    assert show(record(2, scored=SCORED)) is None
    assert show(record(1)) is None


def test_there_is_none_if_none_is_wanted(tmp_path: Path) -> None:
    show = kept_picture(keep(tmp_path, ["val"], [1]), SPACE, 0)
    assert show(record(1, scored=SCORED)) is None


def test_frames_of_vehicles_are_never_shown(tmp_path: Path) -> None:
    mixed = kept_picture(keep(tmp_path / "mixed", [HELD_OUT, "val"], [1]), SPACE, 3)
    one = kept_picture(keep(tmp_path / "one", ["val"], [1]), SPACE, 3)
    own = kept_picture(keep(tmp_path / "own", [HELD_OUT], [1]), SPACE, 3)
    first = record(1, scored=SCORED)
    shown_HWC, expected_HWC = mixed(first), one(first)
    assert shown_HWC is not None
    assert expected_HWC is not None
    assert shown_HWC.shape == expected_HWC.shape  # one row
    assert own(first) is None
