"""Every published layout, read from a tiny data set in it; every kind of bad file, named."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CAMVID_11, CITYSCAPES_ID_TO_TRAIN, IGNORE
from fleetseg.data.sample import Label_HW, Source
from fleetseg.data.sources import LAYOUTS, SOURCES, evenly_spaced, open_source
from fleetseg.data.sources.camvid import published_split
from fleetseg.errors import BadSample, ConfigError, DataError

ROAD = (128, 64, 128)


def save(path: Path, pixels: object, **options: object) -> Path:
    """Write an array (HW ids or HWC colours) as a picture file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)  # type: ignore[arg-type]
    return path


def picture(height: int = 4, width: int = 6) -> npt.NDArray[np.uint8]:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def ids(*values: int) -> npt.NDArray[np.uint8]:
    """A 4x6 label map with these ids in its first row and 0 elsewhere."""
    label_HW = np.zeros((4, 6), dtype=np.uint8)
    label_HW[0, : len(values)] = values
    return label_HW


def opened(kind: str, root: Path, split: str = "train", **fields: object) -> Source:
    return open_source(SourceConfig(kind=kind, root=str(root), split=split, **fields))  # type: ignore[arg-type]


def label_of(source: Source, index: int = 0) -> Label_HW:
    _, label_HW = source.read(source.samples[index])
    assert label_HW is not None
    return label_HW


def segnet(root: Path, stem: str, label: npt.NDArray[np.uint8], split: str = "train") -> None:
    save(root / split / f"{stem}.png", picture())
    save(root / f"{split}annot" / f"{stem}.png", label)


def a_folder(root: Path, toml: str = 'classes = ["road", "person", "sky"]\n') -> Path:
    """A folder data set of one good sample, "a"."""
    save(root / "images" / "a.png", picture())
    save(root / "masks" / "a.png", ids(1, 2, 255))
    (root / "classes.toml").write_text(toml)
    return root


def bad_text(root: Path, stem: str = "a") -> str:
    source = opened("folder", root)
    sample = next(s for s in source.samples if s.id.endswith(f"/{stem}"))
    with pytest.raises(BadSample) as error:
        source.read(sample)
    return str(error.value)


# --- layouts ---------------------------------------------------------------------------------


def test_camvid_segnet_layout(tmp_path: Path) -> None:
    segnet(tmp_path, "0006R0_f00960", ids(3, 10, 11, 255))
    segnet(tmp_path, "0006R0_f00930", ids(3))
    segnet(tmp_path, "0001TP_006690", ids(3))
    source = opened("camvid", tmp_path)
    assert source.space is CAMVID_11
    assert [s.id for s in source.samples] == [
        "camvid/train/0001TP_006690",
        "camvid/train/0006R0_f00930",
        "camvid/train/0006R0_f00960",
    ]
    dusk, day = source.samples[0], source.samples[2]
    assert (dusk.domain, dusk.sequence, dusk.frame, dusk.condition) == (
        *("0001TP", "0001TP", 6690, "dusk"),
    )
    assert (day.city, day.condition, day.frame, day.split) == ("cambridge", "day", 960, "train")
    image_HWC, label_HW = source.read(day)
    assert (image_HWC == picture()).all()
    assert label_HW is not None
    assert label_HW[0].tolist() == [3, 10, 255, 255, 0, 0]  # 11 is void
    assert label_HW.dtype == image_HWC.dtype == np.uint8
    assert image_HWC.flags.writeable
    assert label_HW.flags.writeable


@pytest.mark.parametrize("ending", ["_L", ""])
def test_camvid_kaggle_layout(tmp_path: Path, ending: str) -> None:
    save(tmp_path / "val" / "0016E5_07959.png", picture())
    colours_HWC = np.zeros((4, 6, 3), dtype=np.uint8)
    colours_HWC[0, :4] = [ROAD, (64, 192, 0), (192, 0, 192), (0, 0, 192)]
    save(tmp_path / "val_labels" / f"0016E5_07959{ending}.png", colours_HWC)
    # Road, wall (building), motorcycle (bicyclist), sidewalk (pavement), then void.
    assert label_of(opened("camvid", tmp_path, "val"))[0].tolist() == [3, 1, 10, 4, 255, 255]


def test_camvid_original_layout_and_its_published_split(tmp_path: Path) -> None:
    for stem in ("0001TP_008520", "0001TP_008550", "0016E5_07961", "Seq05VD_f00000"):
        save(tmp_path / "701_StillsRaw_full" / f"{stem}.png", picture())
        label_HWC = np.full((4, 6, 3), ROAD, dtype=np.uint8)
        save(tmp_path / "LabeledApproved_full" / f"{stem}_L.png", label_HWC)

    def found(split: str) -> list[str]:
        return [s.id for s in opened("camvid", tmp_path, split).samples]

    assert found("train") == ["camvid/train/0001TP_008520"]
    assert found("val") == ["camvid/val/0016E5_07961"]
    assert found("test") == ["camvid/test/0001TP_008550", "camvid/test/Seq05VD_f00000"]
    assert len(found("all")) == 4
    assert (label_of(opened("camvid", tmp_path, "val")) == 3).all()


def test_camvid_palette_label_goes_by_its_colours(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0006R0_1.png", picture())
    (tmp_path / "train_labels").mkdir()
    label = Image.fromarray(ids(1))
    label.putpalette([*ROAD, 0, 0, 192])  # "P": index 0 is road, index 1 is sidewalk
    label.save(tmp_path / "train_labels" / "0006R0_1_L.png")
    assert label_of(opened("camvid", tmp_path))[0].tolist() == [4, 3, 3, 3, 3, 3]


def test_camvid_colours_must_match_exactly(tmp_path: Path) -> None:
    save(tmp_path / "train" / "0006R0_1.png", np.zeros((40, 50, 3), dtype=np.uint8))
    label_HWC = np.full((40, 50, 3), ROAD, dtype=np.uint8)
    label_HWC[0, 0] = (127, 64, 128)
    path = save(tmp_path / "train_labels" / "0006R0_1_L.png", label_HWC)
    # A stray pixel of 2,000 is ignored, not guessed.
    assert label_of(opened("camvid", tmp_path))[0, :2].tolist() == [IGNORE, 3]
    label_HWC[0, :10] = (127, 64, 128)
    save(path, label_HWC)
    source = opened("camvid", tmp_path)
    with pytest.raises(BadSample, match=r"0006R0_1_L.png: .*\(127, 64, 128\) \(10 px\)"):
        source.read(source.samples[0])


def test_camvid_without_labels_is_unlabelled(tmp_path: Path) -> None:
    save(tmp_path / "test" / "Seq05VD_f00000.png", picture())
    source = opened("camvid", tmp_path, "test")
    assert source.samples[0].label is None
    image_HWC, label_HW = source.read(source.samples[0])
    assert image_HWC.shape == (4, 6, 3)
    assert label_HW is None
    assert source.digest(source.samples[0])[1] == ""


def test_idd_lite_layout(tmp_path: Path) -> None:
    for drive, frame in (("417", "0020462"), ("84", "frame12"), ("84", "frame7")):
        save(tmp_path / f"leftImg8bit/train/{drive}/{frame}_image.jpg", picture())
        save(tmp_path / f"gtFine/train/{drive}/{frame}_label.png", ids(6, 255))
    save(tmp_path / "leftImg8bit/test/9/1_image.jpg", picture())
    source = opened("idd_lite", tmp_path)
    assert [s.id for s in source.samples] == [
        "idd_lite/train/417/0020462",
        "idd_lite/train/84/frame7",  # by frame number, not by name
        "idd_lite/train/84/frame12",
    ]
    assert {s.sequence for s in source.samples} == {"idd_417", "idd_84"}
    assert {s.domain for s in source.samples} == {"india"}
    assert label_of(source)[0].tolist() == [6, 255, 0, 0, 0, 0]
    assert opened("idd_lite", tmp_path, "test").samples[0].label is None


def cityscapes(root: Path, stem: str, *kinds: tuple[str, npt.NDArray[np.uint8]]) -> None:
    city = stem.partition("_")[0]
    save(root / f"leftImg8bit/train/{city}/{stem}_leftImg8bit.png", picture())
    for kind, label_HW in kinds:
        save(root / f"gtFine/train/{city}/{stem}_gtFine_{kind}.png", label_HW)


def test_cityscapes_layout_prefers_raw_ids(tmp_path: Path) -> None:
    raw, derived = ids(7, 26, 33, 0, 255), ids(18, 18, 18)
    cityscapes(tmp_path, "jena_000055_000019", ("labelIds", raw), ("labelTrainIds", derived))
    cityscapes(tmp_path, "aachen_000000_000019", ("labelTrainIds", derived))
    source = opened("cityscapes", tmp_path)
    aachen, jena = source.samples
    assert aachen.id == "cityscapes/train/aachen/aachen_000000_000019"
    assert (jena.city, jena.domain, jena.sequence) == ("jena", "jena", "jena_000055")
    assert jena.frame == 19
    assert label_of(source, 0)[0].tolist() == [18, 18, 18, 0, 0, 0]
    assert label_of(source, 1)[0].tolist() == [0, 13, 18, 255, 255, 255]


def test_cityscapes_wrong_ids_are_named(tmp_path: Path) -> None:
    cityscapes(tmp_path, "jena_000000_000000", ("labelIds", ids(7, 77)))
    cityscapes(tmp_path, "jena_000000_000001", ("labelTrainIds", ids(7, 26, 33)))
    source = opened("cityscapes", tmp_path)
    with pytest.raises(BadSample, match=r"got 77 \(1 px\), expected raw Cityscapes ids 0-33"):
        source.read(source.samples[0])
    with pytest.raises(BadSample, match=r"got 26 .*33 .*belong in a file named .*labelIds.png"):
        source.read(source.samples[1])


def test_folder_with_domains_and_drives(tmp_path: Path) -> None:
    for stem in ("rain/d1/f2", "rain/d1/f10", "sun/f1"):
        save(tmp_path / "images" / f"{stem}.jpg", picture())
        save(tmp_path / "masks" / f"{stem}.png", ids(2))
    toml = 'name = "depot"\nclasses = ["a", "b", "c"]\ncritical = ["b"]\nignore = [9]\n'
    (tmp_path / "classes.toml").write_text(toml)
    source = opened("folder", tmp_path, "val")
    assert [s.id for s in source.samples] == [
        "depot/val/rain/d1/f2",
        "depot/val/rain/d1/f10",
        "depot/val/sun/f1",
    ]
    assert [(s.domain, s.sequence) for s in source.samples[1:]] == [
        ("rain", "rain/d1"),
        ("sun", "sun"),
    ]
    assert source.space.classes == ("a", "b", "c")
    assert source.space.critical == ("b",)
    # The first colours of PASCAL VOC, without its black.
    assert source.space.colours == ((128, 0, 0), (0, 128, 0), (128, 128, 0))
    save(tmp_path / "masks/sun/f1.png", ids(1, 9, 255))
    assert label_of(source, 2)[0].tolist() == [1, 255, 255, 0, 0, 0]


def test_folder_with_a_built_in_space_and_colour_masks(tmp_path: Path) -> None:
    a_folder(tmp_path, 'space = "camvid11"\n')
    assert opened("folder", tmp_path).space is CAMVID_11
    save(tmp_path / "masks/a.png", np.full((4, 6, 3), ROAD, dtype=np.uint8))
    assert (label_of(opened("folder", tmp_path)) == 3).all()


@pytest.mark.parametrize("form", ["{split}/images/a.png", "images/{split}/a.png"])
def test_folder_splits(tmp_path: Path, form: str) -> None:
    (tmp_path / "classes.toml").write_text('classes = ["a"]\nname = "x"\n')
    for split in ("train", "val"):
        save(tmp_path / form.format(split=split), picture())
        save(tmp_path / form.format(split=split).replace("images", "masks"), ids(0))
    assert [s.id for s in opened("folder", tmp_path, "val").samples] == ["x/val/a"]
    assert (label_of(opened("folder", tmp_path, "val")) == 0).all()
    with pytest.raises(DataError, match=r"no split 'test'.*one of: train, val"):
        opened("folder", tmp_path, "test")


# --- classes.toml ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "what"),
    [
        ("classes = [", "not valid TOML"),
        ("", "either `classes` or `space`"),
        ('classes = ["a"]\nspace = "idd7"', "either `classes` or `space`"),
        ('space = "idd8"', "unknown space 'idd8'; known: camvid11"),
        ('space = "idd7"\ncritical = ["sky"]', "defines its own"),
        ('classes = ["a", "a"]', "distinct"),
        ('classes = ["a"]\ncolours = [[0, 0, 0], [1, 1, 1]]', "2 colours for 1 classes"),
        ('classes = ["a"]\ncolours = [[0, 0, 256]]', "each 0-255"),
        ('classes = ["a", "b"]\ncolours = [[1, 1, 1], [1, 1, 1]]', "share a colour"),
        ('classes = ["a"]\ncritical = ["b"]', "not in `classes`"),
        ('classes = ["a"]\nignore = [256]', "0-255"),
        ('classes = "a"', "classes: .*list"),
        ('classes = ["a"]\ncolour = []', "colour: .*keys: name, space, classes"),
    ],
)
def test_wrong_classes_toml_is_explained(tmp_path: Path, toml: str, what: str) -> None:
    a_folder(tmp_path, toml)
    with pytest.raises(DataError, match=rf"classes\.toml: .*{what}"):
        opened("folder", tmp_path)


def test_missing_classes_toml_says_what_to_write(tmp_path: Path) -> None:
    (a_folder(tmp_path) / "classes.toml").unlink()
    with pytest.raises(DataError, match=r"classes.toml is missing. Write one: classes = \["):
        opened("folder", tmp_path)


# --- bad files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["images/a.png", "masks/a.png"])
def test_truncated_file(tmp_path: Path, name: str) -> None:
    a_folder(tmp_path)
    noise = np.random.Generator(np.random.Philox(1)).integers(0, 3, (64, 64), dtype=np.uint8)
    for which in ("images", "masks"):
        save(tmp_path / which / "a.png", noise)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:300])
    text = bad_text(tmp_path)
    assert text.startswith(f"{path}: truncated or damaged file")
    assert text.endswith("Copy it again")


def test_truncated_jpeg_and_flipped_bits(tmp_path: Path) -> None:
    a_folder(tmp_path)
    (tmp_path / "images/a.png").unlink()
    path = save(tmp_path / "images/a.jpg", np.zeros((200, 200, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-400])
    assert "truncated" in bad_text(tmp_path)
    path.unlink()
    path = save(tmp_path / "images/a.png", picture(64, 64))
    content = bytearray(path.read_bytes())
    content[60] ^= 0xFF
    path.write_bytes(content)
    assert "truncated or damaged" in bad_text(tmp_path)


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "starts with b'%!PS"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00", "starts with b'GIF89a"),
    ],
)
@pytest.mark.parametrize("name", ["images/a.png", "masks/a.png"])
def test_file_of_another_type(tmp_path: Path, name: str, content: bytes, got: str) -> None:
    (a_folder(tmp_path) / name).write_bytes(content)
    text = bad_text(tmp_path)
    assert f"{name}: not a picture" in text
    assert got in text
    assert ("Save it as PNG" in text) == content.startswith(b"GIF")


def test_unreadable_file(tmp_path: Path) -> None:
    (a_folder(tmp_path) / "images/a.png").unlink()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "gone.png")
    assert "images/a.png: file not found" in bad_text(tmp_path)
    source = opened("folder", tmp_path)
    with pytest.raises(BadSample, match="file not found"):
        source.digest(source.samples[0])


def test_missing_label_and_missing_image(tmp_path: Path) -> None:
    a_folder(tmp_path)
    save(tmp_path / "images/b.png", picture())
    save(tmp_path / "masks/c.png", ids(1))
    source = opened("folder", tmp_path)
    assert [s.id.rpartition("/")[2] for s in source.samples] == ["a", "b", "c"]
    assert "masks/b.png: file not found" in bad_text(tmp_path, "b")
    assert "images/c.png: file not found" in bad_text(tmp_path, "c")


def test_missing_sides_in_the_published_layouts(tmp_path: Path) -> None:
    segnet(tmp_path, "0006R0_f1", ids(3))
    (tmp_path / "trainannot/0006R0_f1.png").unlink()
    cityscapes(tmp_path, "jena_000000_000000", ("labelIds", ids(7)))
    (tmp_path / "leftImg8bit/train/jena/jena_000000_000000_leftImg8bit.png").unlink()
    cityscapes(tmp_path, "jena_000000_000001", ("labelIds", ids(7)))
    expected = {
        "camvid": "trainannot/0006R0_f1.png: file not found",
        "cityscapes": "jena_000000_000000_leftImg8bit.png: file not found",
    }
    for kind, what in expected.items():
        source = opened(kind, tmp_path)
        with pytest.raises(BadSample, match=what):
            source.read(source.samples[0])


def test_sizes_differ(tmp_path: Path) -> None:
    save(a_folder(tmp_path) / "masks/a.png", np.zeros((4, 7), dtype=np.uint8))
    text = bad_text(tmp_path)
    assert "label and image differ in size; got label 7x4, expected 6x4 as" in text
    save(tmp_path / "masks/a.png", np.zeros((6, 4), dtype=np.uint8))
    assert "EXIF" in bad_text(tmp_path)


def test_ids_outside_the_space(tmp_path: Path) -> None:
    save(a_folder(tmp_path) / "masks/a.png", ids(2, 3, 3, 200))
    text = bad_text(tmp_path)
    assert "masks/a.png: label ids outside" in text
    assert "got 3 (2 px), 200 (1 px), expected 0-2, or 255 to ignore" in text
    assert "`ignore`" in text


def test_raw_cityscapes_ids_used_as_train_ids(tmp_path: Path) -> None:
    save(a_folder(tmp_path, 'space = "cityscapes19"') / "masks/a.png", ids(7, 24, 26))
    text = bad_text(tmp_path)
    assert "got 24 (1 px), 26 (1 px), expected 0-18" in text
    assert "raw Cityscapes ids: use kind = 'cityscapes'" in text


def test_segnet_void_used_as_train_id(tmp_path: Path) -> None:
    save(a_folder(tmp_path, 'space = "camvid11"') / "masks/a.png", ids(3, 11))
    assert "`ignore = [11]`" in bad_text(tmp_path)
    (tmp_path / "classes.toml").write_text('space = "camvid11"\nignore = [11]\n')
    assert label_of(opened("folder", tmp_path))[0, :2].tolist() == [3, 255]


def test_instance_ids_used_as_labels(tmp_path: Path) -> None:
    label_HW = np.full((4, 6), 26010, dtype=np.uint16)
    save(a_folder(tmp_path, 'space = "cityscapes19"') / "masks/a.png", label_HW)
    assert "got 26010 (24 px)" in bad_text(tmp_path)
    assert "instance ids" in bad_text(tmp_path)


def test_all_void_label(tmp_path: Path) -> None:
    save(a_folder(tmp_path) / "masks/a.png", np.full((4, 6), 255, dtype=np.uint8))
    assert "every pixel of the label is void" in bad_text(tmp_path)


def test_colour_label_where_ids_belong(tmp_path: Path) -> None:
    save(a_folder(tmp_path) / "masks/a.png", picture())
    text = bad_text(tmp_path)
    assert "label map has colours instead of ids; got mode RGB" in text
    assert "`colours` in classes.toml" in text


def test_lossy_label(tmp_path: Path) -> None:
    save(a_folder(tmp_path) / "masks/a.png", ids(1), format="JPEG")
    assert "lossy format" in bad_text(tmp_path)


def grey_png(depth: int, row: bytes, width: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" + row))
        + chunk(b"IEND", b"")
    )


def test_grey_of_few_bits_is_refused_as_label_and_taken_as_picture(tmp_path: Path) -> None:
    # PIL would turn ids 0, 1, 2, 3 of this file into 0, 17, 34, 51.
    content = grey_png(4, b"\x01\x23", width=4)
    (a_folder(tmp_path) / "masks/a.png").write_bytes(content)
    assert "2- or 4-bit grey" in bad_text(tmp_path)
    (tmp_path / "images/a.png").write_bytes(content)
    save(tmp_path / "masks/a.png", np.zeros((1, 4), dtype=np.uint8))
    image_HWC, _ = (source := opened("folder", tmp_path)).read(source.samples[0])
    assert image_HWC[0, :, 1].tolist() == [0, 17, 34, 51]


def test_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + header
    bomb += struct.pack(">I", zlib.crc32(b"IHDR" + header)) + b"\0\0\0\0IDAT"
    bomb += struct.pack(">I", zlib.crc32(b"IDAT"))
    (a_folder(tmp_path) / "images/a.png").write_bytes(bomb)
    text = bad_text(tmp_path)
    assert "too large to decode safely" in text
    assert "at most 64,000,000 pixels" in text


# --- pictures that are odd but fine ----------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr"])
def test_harmless_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    a_folder(tmp_path)
    (tmp_path / "images/a.png").unlink()
    image = Image.fromarray(np.full((4, 6, 3), 255, dtype=np.uint8)).convert(mode)
    options = {"transparency": b"\x80" * 256} if mode == "P" else {}
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    image.save(tmp_path / "images" / f"a.{suffix}", **options)
    source = opened("folder", tmp_path)
    image_HWC, _ = source.read(source.samples[0])
    assert image_HWC.shape == (4, 6, 3)
    assert image_HWC.dtype == np.uint8
    assert image_HWC.min() >= 254


def test_16_bit_grey_keeps_the_high_byte(tmp_path: Path) -> None:
    values_HW = np.full((4, 6), 0x1234, dtype=np.uint16)
    save(a_folder(tmp_path) / "images/a.png", values_HW)
    source = opened("folder", tmp_path)
    assert (source.read(source.samples[0])[0] == 0x12).all()


def test_floating_point_picture_is_refused(tmp_path: Path) -> None:
    a_folder(tmp_path)
    (tmp_path / "images/a.png").unlink()
    save(tmp_path / "images/a.tif", np.zeros((4, 6), dtype=np.float32))
    assert "not a camera picture; got pixel mode F" in bad_text(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint16, np.bool_])
def test_label_ids_of_other_depths(tmp_path: Path, dtype: type) -> None:
    save(a_folder(tmp_path) / "masks/a.png", ids(1, 1).astype(dtype))
    assert label_of(opened("folder", tmp_path))[0].tolist() == [1, 1, 0, 0, 0, 0]


def test_palette_label_goes_by_index(tmp_path: Path) -> None:
    a_folder(tmp_path)
    label = Image.fromarray(ids(2, 1))
    label.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    label.save(tmp_path / "masks/a.png")
    assert label_of(opened("folder", tmp_path))[0].tolist() == [2, 1, 0, 0, 0, 0]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    a_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera stood on its side: rotate by 90 degrees clockwise
    save(tmp_path / "images/a.png", picture(), exif=exif)
    save(tmp_path / "masks/a.png", np.zeros((6, 4), dtype=np.uint8))
    source = opened("folder", tmp_path)
    assert (source.read(source.samples[0])[0] == np.rot90(picture(), -1)).all()


# --- opening ---------------------------------------------------------------------------------


def test_unknown_kind_and_missing_root() -> None:
    with pytest.raises(ConfigError, match=r"unknown source kind 'camvi'.*Did you mean 'camvid'"):
        open_source(SourceConfig(kind="camvi"))
    with pytest.raises(ConfigError, match="'camvid' needs a root"):
        open_source(SourceConfig(kind="camvid"))


KINDS = [kind for kind in SOURCES if kind != "synthetic"]


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_root_says_what_was_looked_for_and_found(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="folder not found"):
        opened(kind, tmp_path / "gone")
    expected = f"got an empty folder, expected {re.escape(LAYOUTS[kind][0])}"
    with pytest.raises(DataError, match=expected):
        opened(kind, tmp_path)
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match=r"got a folder with holiday/, expected"):
        opened(kind, tmp_path)


@pytest.mark.parametrize("kind", ["camvid", "cityscapes", "idd_lite", "folder"])
def test_missing_split_lists_the_others(tmp_path: Path, kind: str) -> None:
    segnet(tmp_path, "0006R0_f1", ids(3))
    cityscapes(tmp_path, "jena_000000_000000", ("labelIds", ids(7)))
    save(tmp_path / "leftImg8bit/train/1/1_image.jpg", picture())
    save(tmp_path / "train/images/1.png", picture())
    with pytest.raises(DataError, match=r"no split 'vall'.*one of: train"):
        opened(kind, tmp_path, "vall")


def test_empty_split_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "trainannot").mkdir()
    (tmp_path / "train/.DS_Store").touch()
    (tmp_path / "train/notes.txt").touch()
    with pytest.raises(DataError, match="train: no pictures in the folder"):
        opened("camvid", tmp_path)


def test_two_pictures_of_one_name(tmp_path: Path) -> None:
    save(a_folder(tmp_path) / "images/a.jpg", picture())
    with pytest.raises(DataError, match=r"share a name; got a.jpg and a.png"):
        opened("folder", tmp_path)


def test_filters(tmp_path: Path) -> None:
    for drive, count in (("0001TP", 3), ("0006R0", 6)):
        for frame in range(count):
            segnet(tmp_path, f"{drive}_{frame:03}", ids(3))
    source = opened("camvid", tmp_path, sequences=("0006R0",), limit=3)
    assert [s.frame for s in source.samples] == [0, 2, 4]
    assert len(opened("camvid", tmp_path, limit=99).samples) == 9
    with pytest.raises(DataError, match=r"no drive '0006RO'.*0001TP, 0006R0. Did you mean '0006R0"):
        opened("camvid", tmp_path, sequences=("0001TP", "0006RO"))


@pytest.mark.parametrize(("count", "limit"), [(10, 3), (10, 10), (7, 1), (100, 33), (5, 0)])
def test_evenly_spaced_keeps_order_and_number(tmp_path: Path, count: int, limit: int) -> None:
    segnet(tmp_path, "0006R0_1", ids(3))
    sample = opened("camvid", tmp_path).samples[0]
    many = [type(sample)(*("x",) * 4, None, "d", frame=i) for i in range(count)]
    frames = [s.frame for s in evenly_spaced(many, limit)]
    assert len(frames) == (limit or count)
    gaps = np.diff(frames)
    assert frames[0] == 0
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_digest_is_that_of_the_file_bytes(tmp_path: Path) -> None:
    source = opened("folder", a_folder(tmp_path))
    assert source.digest(source.samples[0]) == tuple(
        hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        for name in ("images/a.png", "masks/a.png")
    )


def test_sources_go_to_worker_processes(tmp_path: Path) -> None:
    source = opened("folder", a_folder(tmp_path))
    copy = pickle.loads(pickle.dumps(source))
    assert (label_of(copy) == label_of(source)).all()


# --- real data -------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_camvid(real_data: Path) -> None:
    train = opened("camvid", real_data / "camvid")
    val = opened("camvid", real_data / "camvid", "val")
    assert Counter(s.sequence for s in train.samples) == {
        "0001TP": 62,
        "0006R0": 101,
        "0016E5": 204,
    }
    assert Counter(s.sequence for s in val.samples) == {"0016E5": 101}
    for sample in (*train.samples, *val.samples):
        assert published_split(sample.id.rpartition("/")[2]) == sample.split


@pytest.mark.real_data
def test_real_idd_lite(real_data: Path) -> None:
    source = opened("idd_lite", real_data / "idd_lite")
    drives = Counter(s.sequence for s in source.samples)
    assert (len(source.samples), len(drives)) == (1403, 309)
    assert (min(drives.values()), max(drives.values())) == (1, 36)
    assert sum(n >= 5 for n in drives.values()) == 107
    for sample in source.samples[::100]:
        image_HWC, label_HW = source.read(sample)
        assert image_HWC.shape == (227, 320, 3)
        assert label_HW is not None


@pytest.mark.real_data
def test_real_cityscapes(real_data: Path) -> None:
    source = opened("cityscapes", real_data / "cityscapes_sample", "val")
    (sample,) = source.samples
    assert (sample.city, sample.sequence, sample.frame) == ("frankfurt", "frankfurt_000000", 294)
    label_HW = label_of(source)
    assert sample.label is not None
    raw_HW = np.asarray(Image.open(sample.label))
    assert (label_HW == CITYSCAPES_ID_TO_TRAIN[raw_HW]).all()
    derived = Image.open(sample.label.replace("labelIds", "labelTrainIds"))
    assert (np.asarray(derived) != label_HW).sum() == 77
