"""What is found out of folders in published layouts and of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.draft.folders import own_folder, picture
from tests.published_layouts import MAKERS, save
from tests.tiny_cityscapes import write_cityscapes

from fleetseg.draft.look import look
from fleetseg.errors import ConfigError, DataError


@pytest.mark.parametrize("kind", sorted(set(MAKERS) - {"dark_zurich", "wilddash"}))
def test_each_published_layout_is_found_out(kind: str, tmp_path: Path) -> None:
    MAKERS[kind](tmp_path)
    found = look(tmp_path)
    assert found.kind == kind
    assert found.train.labelled
    assert found.size_hw == (8, 16)
    assert not found.is_own


def test_what_only_val_labels_is_trained_on(tmp_path: Path) -> None:
    MAKERS["dark_zurich"](tmp_path)
    found = look(tmp_path)
    assert (found.train.split, found.scored) == ("val", None)


def test_cityscapes_with_its_splits_and_cities(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, {"aachen": 2, "ulm": 3})
    write_cityscapes(tmp_path, {"bonn": 1}, "test")  # dummies: nothing to score on
    found = look(tmp_path)
    assert (found.train.images, found.facts["city"], found.scored) == (5, 2, None)
    write_cityscapes(tmp_path, {"frankfurt": 2}, "val")
    scored = look(tmp_path).scored
    assert scored is not None
    assert (scored.split, scored.images) == ("val", 2)


def test_classes_of_a_folder_without_a_list_are_drafted_beside_it_once(tmp_path: Path) -> None:
    own_folder(tmp_path, ids=(0, 1, 4))
    found = look(tmp_path)
    assert found.wrote == tmp_path / "classes.toml"
    assert found.space.classes == ("class_0", "class_1", "class_4")
    assert found.is_own
    (tmp_path / "classes.toml").write_text('classes = ["road", "car", "sky"]\nvalues = [0, 1, 4]')
    again = look(tmp_path)
    assert (again.wrote, again.space.classes) == (None, ("road", "car", "sky"))


def test_a_layout_can_be_named(tmp_path: Path) -> None:
    own_folder(tmp_path, ids=(0, 1))
    assert look(tmp_path, "folder").kind == "folder"
    with pytest.raises(ConfigError, match="Did you mean 'camvid'"):
        look(tmp_path, "camvit")
    with pytest.raises(DataError, match="no data set of kind 'camvid'"):
        look(tmp_path, "camvid")


def test_what_nobody_can_train_on_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        own_folder(tmp_path / name, ids=(0, 1))
    with pytest.raises(DataError, match=r"several data sets .* Name the folder of one"):
        look(tmp_path)
    save(tmp_path / "bare" / "images" / "1.png", picture())
    with pytest.raises(DataError, match="there are images but no masks"):
        look(tmp_path / "bare")
    with pytest.raises(DataError, match="folder not found"):
        look(tmp_path / "nowhere")
    (tmp_path / "bare" / "classes.toml").write_text('classes = ["a", "b"]')
    with pytest.raises(DataError, match="no image has a label"):
        look(tmp_path / "bare")


def test_painted_streets_need_no_folder() -> None:
    found = look(Path("nowhere"), "synthetic")
    assert (found.root, found.size_hw, found.facts["city"]) == ("", (192, 256), 4)
    assert found.scored is not None
