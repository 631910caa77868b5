"""Published layouts with all that is published or left beside the samples."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fleetseg.config import SourceConfig
from fleetseg.data.check import check, detect
from fleetseg.data.sample import Source
from fleetseg.data.sources import open_source
from fleetseg.errors import BadSample, DataError

ROAD = (128, 64, 128)


def save(path: Path, pixels: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)


def image(value: int = 9) -> npt.NDArray[np.uint8]:
    return np.full((4, 6, 3), value, dtype=np.uint8)


def ids(value: int = 1) -> npt.NDArray[np.uint8]:
    return np.full((4, 6), value, dtype=np.uint8)


def opened(kind: str, root: Path, split: str = "train", **fields: object) -> Source:
    return open_source(SourceConfig(kind=kind, root=str(root), split=split, **fields))  # type: ignore[arg-type]


def good(source: Source) -> list[str]:
    """The ids of all samples; each of them must be readable, and with a label."""
    assert all(source.read(sample)[1] is not None for sample in source.samples)
    return [sample.id for sample in source.samples]


def litter(folder: Path) -> None:
    """What desktops and file servers leave in a folder."""
    save(folder / "@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", image())
    save(folder / "__MACOSX/0.png", image())
    save(folder / ".ipynb_checkpoints/0-checkpoint.png", image())
    save(folder / "lost+found/0.png", image())
    save(folder / "#recycle/0.png", image())
    save(folder / "$RECYCLE.BIN/0.png", image())
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", "train.txt", "README.csv"):
        (folder / name).write_bytes(b"\0\5\x16\7")


def test_idd_lite_with_its_instance_labels(tmp_path: Path) -> None:
    for split, frames in (("train", ("frame1", "000002")), ("val", ("000003",))):
        for frame in frames:
            save(tmp_path / f"leftImg8bit/{split}/7/{frame}_image.jpg", image())
            save(tmp_path / f"gtFine/{split}/7/{frame}_label.png", ids())
            save(tmp_path / f"gtFine/{split}/7/{frame}_inst_label.png", ids())
    save(tmp_path / "leftImg8bit/test/9/000004_image.jpg", image())
    for folder in tmp_path.rglob("[79]"):
        litter(folder)
    litter(tmp_path / "leftImg8bit")
    assert [config.split for config in detect(tmp_path)] == ["test", "train", "val"]
    source = opened("idd_lite", tmp_path)
    assert good(source) == ["idd_lite/train/7/frame1", "idd_lite/train/7/000002"]
    assert source.notes == ()
    assert good(opened("idd_lite", tmp_path, "val")) == ["idd_lite/val/7/000003"]
    assert opened("idd_lite", tmp_path, "test").samples[0].label is None


def test_an_unknown_sibling_is_noted_and_an_orphan_is_bad(tmp_path: Path) -> None:
    save(tmp_path / "leftImg8bit/train/7/1_image.jpg", image())
    for stem in ("1", "1_color", "2_inst_of"):
        save(tmp_path / f"gtFine/train/7/{stem}_label.png", ids())
    source = opened("idd_lite", tmp_path)
    assert [s.id for s in source.samples] == ["idd_lite/train/7/1", "idd_lite/train/7/2_inst_of"]
    (note,) = check(source).notes[:1]
    assert note.startswith("1 files beside samples have")
    assert note.endswith("1_color_label.png")


@pytest.mark.parametrize("archives", [False, True])
def test_cityscapes_with_everything_that_is_published(tmp_path: Path, archives: bool) -> None:
    images = tmp_path / ("leftImg8bit_trainvaltest/leftImg8bit" if archives else "leftImg8bit")
    labels = tmp_path / ("gtFine_trainvaltest/gtFine" if archives else "gtFine")
    stem = "ulm_000000_000019"
    for split in ("train", "val"):
        save(images / f"{split}/ulm/{stem}_leftImg8bit.png", image())
        save(images / f"{split}/ulm/{stem}_leftImg8bit_blurred.png", image())
        save(labels / f"{split}/ulm/{stem}_gtFine_labelIds.png", ids(7))
        for kind in ("labelTrainIds", "instanceIds", "instanceTrainIds"):
            save(labels / f"{split}/ulm/{stem}_gtFine_{kind}.png", ids(0))
        save(labels / f"{split}/ulm/{stem}_gtFine_color.png", image())
        (labels / f"{split}/ulm/{stem}_gtFine_polygons.json").write_text("{}")
        save(tmp_path / f"gtCoarse/{split}/ulm/{stem}_gtCoarse_labelIds.png", ids(11))
        litter(images / f"{split}/ulm")
        litter(labels / f"{split}/ulm")
    (tmp_path / "license.txt").touch()
    assert [(c.kind, c.split) for c in detect(tmp_path)] == [
        ("cityscapes", "train"),
        ("cityscapes", "val"),
    ]
    source = opened("cityscapes", tmp_path)
    assert good(source) == [f"cityscapes/train/ulm/{stem}"]
    assert source.samples[0].label == str(labels / f"train/ulm/{stem}_gtFine_labelIds.png")


def test_the_extra_frames_of_cityscapes_have_coarse_labels(tmp_path: Path) -> None:
    stem = "bayreuth_000000_000019"
    save(tmp_path / f"leftImg8bit/train_extra/bayreuth/{stem}_leftImg8bit.png", image())
    save(tmp_path / f"gtCoarse/train_extra/bayreuth/{stem}_gtCoarse_labelIds.png", ids(7))
    assert len(good(opened("cityscapes", tmp_path, "train_extra"))) == 1


def test_the_test_labels_of_cityscapes_are_known_to_be_dummies(tmp_path: Path) -> None:
    stem = "bonn_000000_000019"
    save(tmp_path / f"leftImg8bit/test/bonn/{stem}_leftImg8bit.png", image())
    save(tmp_path / f"gtFine/test/bonn/{stem}_gtFine_labelIds.png", ids(0))
    source = opened("cityscapes", tmp_path, "test")
    with pytest.raises(BadSample, match=r"label is void.*not public.*split = 'val'"):
        source.read(source.samples[0])


def test_camvid_segnet_with_colour_labels_and_lists(tmp_path: Path) -> None:
    save(tmp_path / "train/0001TP_1.png", image())
    save(tmp_path / "train/0001TP_1_L.png", image())
    save(tmp_path / "train/legend.png", image())
    save(tmp_path / "trainannot/0001TP_1.png", ids())
    for beside in ("_L", "_P", "_color"):
        save(tmp_path / f"trainannot/0001TP_1{beside}.png", image())
    for name in ("train.txt", "class_dict.csv"):
        (tmp_path / name).touch()
    litter(tmp_path / "train")
    litter(tmp_path / "trainannot")
    source = opened("camvid", tmp_path)
    assert good(source) == ["camvid/train/0001TP_1"]
    assert "0001TP_1_color.png" in source.notes[0]


def test_camvid_kaggle_prefers_the_published_name_of_a_label(tmp_path: Path) -> None:
    save(tmp_path / "train/0001TP_1.png", image())
    save(tmp_path / "train_labels/0001TP_1_L.png", np.full((4, 6, 3), ROAD, dtype=np.uint8))
    save(tmp_path / "train_labels/0001TP_1.png", ids())
    save(tmp_path / "train_labels/0001TP_1_P.png", ids())
    source = opened("camvid", tmp_path)
    assert good(source) == ["camvid/train/0001TP_1"]
    assert str(source.samples[0].label).endswith("0001TP_1_L.png")


def a_folder(root: Path, *stems: str) -> None:
    (root / "images").mkdir(parents=True, exist_ok=True)
    (root / "classes.toml").write_text('classes = ["void", "road"]\nname = "x"\n')
    for stem in stems:
        save(root / f"images/{stem}.png", image())
        save(root / f"masks/{stem}.png", ids())


def test_folder_with_litter_and_previews(tmp_path: Path) -> None:
    a_folder(tmp_path, "0", "0_1")
    save(tmp_path / "masks/0_vis.png", image())
    save(tmp_path / "images/0.thumb.jpg", image())
    litter(tmp_path)
    litter(tmp_path / "images")
    litter(tmp_path / "masks")
    os.mkfifo(tmp_path / "images" / "pipe.png")  # whoever opens it waits
    assert [(c.kind, c.split) for c in detect(tmp_path)] == [("folder", "train")]
    source = opened("folder", tmp_path)
    assert good(source) == ["x/train/0", "x/train/0_1"]
    (note,) = source.notes
    assert note.startswith("2 files beside samples have")
    assert note.endswith("0.thumb.jpg, 0_vis.png")


def test_a_frame_without_its_partner_is_no_sibling_of_another(tmp_path: Path) -> None:
    a_folder(tmp_path, "0")
    save(tmp_path / "images/0_1.png", image())
    save(tmp_path / "masks/0-2.png", ids())
    assert len(opened("folder", tmp_path).samples) == 3


def test_litter_does_not_turn_splits_into_domains(tmp_path: Path) -> None:
    a_folder(tmp_path, "train/0", "val/0")
    for side in ("images", "masks"):
        litter(tmp_path / side)
    assert [config.split for config in detect(tmp_path)] == ["train", "val"]


@pytest.mark.parametrize("target", [".", "..", "../..", "night"])
def test_links_that_lead_back_are_not_followed(tmp_path: Path, target: str) -> None:
    a_folder(tmp_path / "set", "day/0", "night/0")
    at = "images/night/again" if target == "night" else "images/again"
    (tmp_path / "set" / at).symlink_to(
        tmp_path / "set/images/night" if target == "night" else target
    )
    assert good(opened("folder", tmp_path / "set")) == ["x/train/day/0", "x/train/night/0"]


def test_folders_that_link_to_each_other_are_found_once(tmp_path: Path) -> None:
    a_folder(tmp_path, "a/0", "b/0", "c/0")
    for one, other in ("ab", "bc", "ca"):
        (tmp_path / f"images/{one}/next").symlink_to(tmp_path / f"images/{other}")
    assert good(opened("folder", tmp_path)) == ["x/train/a/0", "x/train/b/0", "x/train/c/0"]


def test_links_to_other_folders_are_followed(tmp_path: Path) -> None:
    a_folder(tmp_path / "set", "here/0")
    for side, pixels in (("images", image()), ("masks", ids())):
        save(tmp_path / f"disk2/{side}/1.png", pixels)
        (tmp_path / f"set/{side}/there").symlink_to(tmp_path / f"disk2/{side}")
    assert good(opened("folder", tmp_path / "set")) == ["x/train/here/0", "x/train/there/1"]


def test_a_file_that_links_to_itself_is_a_bad_sample(tmp_path: Path) -> None:
    a_folder(tmp_path, "0", "1")
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "images/1.png").symlink_to(tmp_path / "images/1.png")
    source = opened("folder", tmp_path)
    with pytest.raises(BadSample, match="cannot be read"):
        source.read(source.samples[1])


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def test_names_are_paired_whatever_their_unicode_form(tmp_path: Path) -> None:
    root = tmp_path / nfd("Städte")
    a_folder(root)
    save(root / f"images/{nfd('köln')}/{nfd('Straße_é_1')}.JPG", image())
    save(root / "masks/köln/Straße_é_1.PNG", ids())
    source = opened("folder", tmp_path / "Städte")
    assert good(source) == ["x/train/köln/Straße_é_1"]
    assert source.samples[0].domain == "köln"
    assert opened("folder", root, sequences=(nfd("köln"),)).samples == source.samples


def test_splits_and_cities_in_another_unicode_form(tmp_path: Path) -> None:
    a_folder(tmp_path)
    (tmp_path / "images").rmdir()
    save(tmp_path / nfd("prüfung") / "images/0.png", image())
    save(tmp_path / nfd("prüfung") / "masks/0.png", ids())
    assert good(opened("folder", tmp_path, "prüfung")) == ["x/prüfung/0"]
    stem = f"{nfd('münchen')}_000000_000001"
    save(tmp_path / f"leftImg8bit/train/{nfd('münchen')}/{stem}_leftImg8bit.png", image())
    save(tmp_path / "gtFine/train/münchen/münchen_000000_000001_gtFine_labelIds.png", ids(7))
    (sample,) = opened("cityscapes", tmp_path).samples
    assert (sample.city, sample.sequence) == ("münchen", "münchen_000000")


def test_names_that_are_not_utf_8_become_names_that_are(tmp_path: Path) -> None:
    name = b"k\xf6ln".decode("utf-8", "surrogateescape")
    try:
        a_folder(tmp_path, f"{name}/0")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    source = opened("folder", tmp_path)
    assert good(source) == ["x/train/k%F6ln/0"]
    assert source.samples[0].domain.encode() == b"k%F6ln"


def test_names_that_command_a_terminal_become_names_that_do_not(tmp_path: Path) -> None:
    a_folder(tmp_path, "night\x1b[31m/0")
    source = opened("folder", tmp_path)
    assert good(source) == ["x/train/night%1B[31m/0"]
    assert source.samples[0].domain == "night%1B[31m"


def test_one_name_in_two_forms_side_by_side_is_told(tmp_path: Path) -> None:
    a_folder(tmp_path, "é", nfd("é"))
    with pytest.raises(DataError, match=r"share a name.*whatever its Unicode form"):
        opened("folder", tmp_path)


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    a_folder(tmp_path)
    for number, suffix in enumerate((".PNG", ".JPG", ".Jpeg", ".TIF")):
        save(tmp_path / f"images/{number}{suffix}", image())
        save(tmp_path / f"masks/{number}.PNG", ids())
    assert len(good(opened("folder", tmp_path))) == 4


def test_masks_that_all_end_alike_are_paired_and_noted(tmp_path: Path) -> None:
    a_folder(tmp_path)
    for stem in ("day/0", "day/1", "2"):
        save(tmp_path / f"images/{stem}.jpg", image())
        save(tmp_path / f"masks/{stem}_mask.png", ids())
    source = opened("folder", tmp_path)
    assert good(source) == ["x/train/day/0", "x/train/day/1", "x/train/2"]
    assert source.notes == ("each mask is paired with the image of the same name without '_mask'",)
    (tmp_path / "masks/2_mask.png").unlink()
    source = opened("folder", tmp_path)
    with pytest.raises(BadSample, match=r"masks/2_mask\.png: file not found"):
        source.read(source.samples[-1])


def test_masks_that_end_otherwise_are_not_guessed(tmp_path: Path) -> None:
    a_folder(tmp_path)
    for stem, mask in (("0", "0_mask"), ("1", "1_seg")):
        save(tmp_path / f"images/{stem}.png", image())
        save(tmp_path / f"masks/{mask}.png", ids())
    assert len(opened("folder", tmp_path).samples) == 4


@pytest.mark.parametrize("mask", ["12", "1_2"])
def test_the_mask_of_another_frame_is_not_taken(tmp_path: Path, mask: str) -> None:
    a_folder(tmp_path)
    save(tmp_path / "images/1.png", image())
    save(tmp_path / f"masks/{mask}.png", ids())
    assert len(opened("folder", tmp_path).samples) == 2
