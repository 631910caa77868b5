"""A folder of one's own whose classes are read into a built-in label space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.published_layouts import save

from fleetseg.config import DataConfig, SourceConfig
from fleetseg.data.labels import CITYSCAPES_19, IDD_7, projection
from fleetseg.data.sample import Source
from fleetseg.data.sources import open_source
from fleetseg.data.spaces import open_space
from fleetseg.errors import BadSample, DataError

QUARRY = """
name = "quarry"
classes = ["gravel", "worker", "dumper", "dust"]
colours = [[10, 10, 10], [20, 20, 20], [30, 30, 30], [40, 40, 40]]
into = "cityscapes19"
names = { gravel = "road", worker = "person", dumper = "truck", dust = "" }
"""


def config(root: Path, toml: str = QUARRY) -> SourceConfig:
    save(root / "images/1.png", np.zeros((2, 3, 3), np.uint8))
    (root / "classes.toml").write_text(toml)
    return SourceConfig(kind="folder", root=str(root))


def opened(root: Path, mask: object, toml: str = QUARRY) -> Source:
    save(root / "masks/1.png", np.asarray(mask, dtype=np.uint8))
    return open_source(config(root, toml))


def read(source: Source) -> list[list[int]]:
    label_HW = source.read(source.samples[0])[1]
    assert label_HW is not None
    ids: list[list[int]] = label_HW.tolist()
    return ids


@pytest.mark.parametrize(
    "mask",
    [
        [[0, 1, 2], [3, 255, 0]],
        [[[10] * 3, [20] * 3, [30] * 3], [[40] * 3, [40] * 3, [10] * 3]],
    ],
    ids=["ids", "colours"],
)
def test_ids_and_colours_become_those_of_the_space(tmp_path: Path, mask: object) -> None:
    source = opened(tmp_path, mask)
    assert (source.name, source.space) == ("quarry", CITYSCAPES_19)
    assert read(source) == [[0, 11, 14], [255, 255, 0]]


def test_values_and_void_ids_count_as_ever(tmp_path: Path) -> None:
    toml = QUARRY + "values = [50, 60, 70, 80]\nignore = [90]\n"
    source = opened(tmp_path, [[50, 60, 70], [80, 90, 255]], toml)
    assert read(source) == [[0, 11, 14], [255, 255, 255]]
    save(tmp_path / "masks/1.png", np.full((2, 3), 1, np.uint8))
    with pytest.raises(BadSample, match=r"got 1 \(6 px\), expected 50, 60, 70, 80, or 90, 255"):
        read(source)


def test_a_run_learns_them_beside_others_or_in_fewer_classes(tmp_path: Path) -> None:
    found = config(tmp_path)
    assert open_space(DataConfig(label_space="own", sources=(found,))) == CITYSCAPES_19
    source = opened(tmp_path, [[0, 1, 2], [3, 3, 0]])
    to_seven = projection(source.space, IDD_7)
    assert to_seven[np.array(read(source))].tolist() == [[0, 2, 3], [255, 255, 0]]


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('into = "cityscapes19"\n', "", "`into` and `names` go together"),
        ("cityscapes19", "cityscapes20", "unknown space 'cityscapes20'; known: camvid11"),
        ('dust = ""', 'mud = ""', r"one entry for each class, and no others: \['dust', 'mud'\]"),
        ('"truck"', '"lorry"', r"values that are not classes of cityscapes19: \['lorry'\]"),
        ("name =", 'critical = ["worker"]\nname =', "defines its own critical"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, old: str, new: str, what: str
) -> None:
    assert old in QUARRY
    with pytest.raises(DataError, match=what):
        open_source(config(tmp_path, QUARRY.replace(old, new, 1)))


def test_a_file_with_a_hidden_second_ending_is_no_missing_one(tmp_path: Path) -> None:
    at = config(tmp_path)
    (tmp_path / "classes.toml").rename(tmp_path / "Classes.toml.txt")
    with pytest.raises(
        DataError, match=r"missing; got Classes.toml.txt. Rename it to classes.toml"
    ):
        open_source(at)


@pytest.mark.parametrize("name", ["", " "])
def test_names_of_classes_are_not_blank(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="`classes` has a name that is blank"):
        open_source(config(tmp_path, f'classes = ["road", "{name}"]'))


def test_masks_in_a_folder_of_another_name_are_noted(tmp_path: Path) -> None:
    assert opened(tmp_path, [[0, 1, 2]] * 2).notes == ()
    (tmp_path / "masks").rename(tmp_path / "labels")
    (note,) = open_source(config(tmp_path)).notes
    assert "all images are unlabelled; if labels has their labels, rename it" in note
    (tmp_path / "labels").rename(tmp_path / "val")
    assert open_source(config(tmp_path)).notes == ()
