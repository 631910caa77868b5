"""A classes.toml drafted from masks: ids, binary masks, colours, built-in spaces, and refusals."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.data.sources.folder import read_space
from fleetseg.draft.classes import draft_classes
from fleetseg.errors import DataError


def mask(path: Path, values: list[int] | list[tuple[int, ...]]) -> str:
    """Write a mask that holds these ids or colours, one after another."""
    Image.fromarray(np.array([values], dtype=np.uint8)).save(path)
    return str(path)


def test_ids_become_classes_in_their_order_and_255_is_void(tmp_path: Path) -> None:
    masks = [mask(tmp_path / "a.png", [0, 2]), mask(tmp_path / "b.png", [1, 255])]
    fields = tomllib.loads(draft_classes(masks, tmp_path))
    assert fields == {"classes": ["class_0", "class_1", "class_2"], "critical": []}


def test_ids_with_gaps_are_named_with_their_values(tmp_path: Path) -> None:
    fields = tomllib.loads(draft_classes([mask(tmp_path / "a.png", [7, 11, 26])], tmp_path))
    assert fields["classes"] == ["class_7", "class_11", "class_26"]
    assert fields["values"] == [7, 11, 26]


def test_masks_of_0_and_255_have_two_classes(tmp_path: Path) -> None:
    fields = tomllib.loads(draft_classes([mask(tmp_path / "a.png", [0, 255])], tmp_path))
    assert (fields["classes"], fields["values"]) == (["background", "foreground"], [0, 255])


def test_colours_of_a_built_in_space_are_recognised_and_black_is_void(tmp_path: Path) -> None:
    colours = [CITYSCAPES_19.colours[0], CITYSCAPES_19.colours[13], (0, 0, 0)]
    fields = tomllib.loads(draft_classes([mask(tmp_path / "a.png", colours)], tmp_path))
    assert fields == {"space": "cityscapes19", "ignore": [[0, 0, 0]]}


def test_other_colours_become_classes_that_a_folder_reads(tmp_path: Path) -> None:
    text = draft_classes([mask(tmp_path / "a.png", [(1, 2, 3), (255, 0, 9)])], tmp_path)
    (tmp_path / "classes.toml").write_text(text)
    assert read_space(tmp_path / "classes.toml").colours == ((1, 2, 3), (255, 0, 9))


def written(path: Path, dtype: type) -> str:
    first = 0 if dtype is np.uint8 else -1
    Image.fromarray(np.array([[first, 1]]).astype(dtype)).save(path)
    return str(path)


def test_what_is_no_mask_of_classes_is_refused(tmp_path: Path) -> None:
    many = mask(tmp_path / "many.png", list(range(150)))
    ids, colours = mask(tmp_path / "i.png", [0, 1]), mask(tmp_path / "c.png", [(1, 2, 3)])
    (tmp_path / "text.png").write_text("no picture")
    for masks, what in (
        ([many], "too many values .* got 150"),
        ([ids, colours], "some masks have ids and others colours"),
        ([str(tmp_path / "text.png")], "no mask can be read; got 1 files; .*not a picture"),
        ([written(tmp_path / "0.jpg", np.uint8)], "a lossy format, which changes ids"),
        ([written(tmp_path / "0.tif", np.int32)], "got -1. Write 255 for pixels without a class"),
        ([written(tmp_path / "1.tif", np.float32)], "label map in floating point"),
    ):
        with pytest.raises(DataError, match=what):
            draft_classes(masks, tmp_path)
