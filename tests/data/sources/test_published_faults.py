"""Published sets that are half downloaded, somewhere else, or with other labels: clear errors."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.published_layouts import GTA5_PALETTE, MAKERS, gta5, kitti, label_of, mapillary, save

from fleetseg.config import SourceConfig
from fleetseg.data.check import check, detect
from fleetseg.data.sample import Source
from fleetseg.data.sources import LAYOUTS, open_source
from fleetseg.errors import BadSample, DataError

LABELLED = {
    "mapillary": "training", "kitti": "training", "crosscity": "Test", "dark_zurich": "val",
}  # fmt: skip
each_kind = pytest.mark.parametrize("kind", MAKERS)


def opened(kind: str, root: Path) -> Source:
    split = LABELLED.get(kind, "train")
    return open_source(SourceConfig(kind=kind, root=str(root), split=split))


def bad_text(source: Source, index: int = 0) -> str:
    with pytest.raises(BadSample) as error:
        source.read(source.samples[index])
    return str(error.value)


@each_kind
def test_a_folder_of_another_set_is_refused_with_the_layout_that_was_expected(
    tmp_path: Path, kind: str
) -> None:
    other = "kitti" if kind != "kitti" else "idda"
    MAKERS[other](tmp_path)
    with pytest.raises(DataError) as error:
        open_source(SourceConfig(kind=kind, root=str(tmp_path), split="train"))
    text = str(error.value)
    if kind == "mapillary":  # KITTI has its name for a split, and no images/ in it
        assert "training/images/<id>.jpg" in text
    assert f"no {kind} data set" in text
    assert LAYOUTS[kind][0] in text
    assert "training/" in text or "T01_CN_A/" in text  # what is there instead


@each_kind
def test_a_missing_label_is_a_bad_sample_that_names_it(tmp_path: Path, kind: str) -> None:
    MAKERS[kind](tmp_path)
    label = Path(str(opened(kind, tmp_path).samples[0].label))
    for path in label.parent.glob(f"{label.stem.removesuffix('_labelIds')}*"):
        path.unlink()  # with all that is published beside it
    save(label.with_name("unrelated.png"), label_of([0]))
    source = opened(kind, tmp_path)
    bad = [each for each in check(source).bad if "unrelated" not in each.file]
    assert [(each.file, "file not found" in each.text) for each in bad] == [(str(label), True)]


@each_kind
def test_a_missing_image_is_a_bad_sample_that_names_it(tmp_path: Path, kind: str) -> None:
    MAKERS[kind](tmp_path)
    image = Path(opened(kind, tmp_path).samples[0].image)
    image.unlink()
    save(image.with_name(f"zz{image.name}"), np.zeros((8, 16, 3), np.uint8))
    report = check(opened(kind, tmp_path))
    assert str(image) in {each.file for each in report.bad if "file not found" in each.text}


@each_kind
@pytest.mark.parametrize("which", ["image", "label"])
def test_a_truncated_file_is_a_bad_sample(tmp_path: Path, kind: str, which: str) -> None:
    MAKERS[kind](tmp_path)
    path = Path(str(getattr(opened(kind, tmp_path).samples[0], which)))
    data = path.read_bytes()
    # Without the end of a PNG's pixels (16 bytes are what follows them), or half of a JPEG.
    path.write_bytes(data[:-22] if path.suffix == ".png" else data[: len(data) // 2])
    text = bad_text(opened(kind, tmp_path))
    assert text.startswith(str(path))
    assert "truncated or damaged" in text


@each_kind
def test_without_the_folder_of_labels_all_are_unlabelled_and_a_note_says_so(
    tmp_path: Path, kind: str
) -> None:
    MAKERS[kind](tmp_path)
    folders = {Path(str(s.label)).parent for s in opened(kind, tmp_path).samples}
    whole = {"acdc": "gt", "dark_zurich": "gt", "idd": "gtFine"}
    for folder in {tmp_path / whole[kind]} if kind in whole else folders:
        shutil.rmtree(folder)
    source = opened(kind, tmp_path)
    assert {sample.label for sample in source.samples} == {None}
    assert any("its images are unlabelled" in note for note in source.notes)


@pytest.mark.parametrize("kind", sorted(set(MAKERS) - {"a2d2"}))
def test_an_id_that_the_set_has_not_is_told_with_its_own_ids(tmp_path: Path, kind: str) -> None:
    MAKERS[kind](tmp_path)
    label = opened(kind, tmp_path).samples[0].label
    save(Path(str(label)), label_of([1, 200]))
    text = bad_text(opened(kind, tmp_path))
    assert re.search(r"label ids outside .*; got 200 \(127 px\), expected ", text)
    assert "classes.toml" not in text  # that is the user's own, and these are not


def test_a_label_of_vistas_v2_is_told(tmp_path: Path) -> None:
    mapillary(tmp_path)
    label = opened("mapillary", tmp_path).samples[0].label
    save(Path(str(label)), label_of([123]), [0, 1, 2] * 256)
    text = bad_text(opened("mapillary", tmp_path))
    assert "expected ids 0-65 of Vistas v1.2. Is this a label of v2.0, which has 124" in text


def test_the_coloured_label_of_kitti_is_told(tmp_path: Path) -> None:
    kitti(tmp_path)
    label = opened("kitti", tmp_path).samples[0].label
    save(Path(str(label)), np.zeros((8, 16, 3), np.uint8))
    assert "label map has colours instead of ids" in bad_text(opened("kitti", tmp_path))


def test_nothing_known_lists_every_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        detect(tmp_path)
    assert all(f"[{kind}]" in str(error.value) for kind in MAKERS)


# GTA5 goes by ids and colours, and the two must agree


def gta5_label(root: Path, pixels: object, palette: list[int] | None = None) -> Source:
    gta5(root)
    path = Path(str(opened("gta5", root).samples[0].label))
    save(path, np.asarray(pixels, dtype=np.uint8), palette or ())
    return opened("gta5", root)


def coloured(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array(colours, np.uint8)[label_of(range(len(colours)))]


def test_gta5_in_plain_colours_is_read_as_its_palette_is(tmp_path: Path) -> None:
    source = gta5_label(tmp_path, coloured(*(GTA5_PALETTE[i] for i in (0, 4, 7, 17, 24, 26))))
    label_HW = source.read(source.samples[0])[1]
    assert label_HW is not None
    assert label_HW[0, :7].tolist() == [255, 255, 0, 5, 11, 13, 13]


def test_one_pixel_of_an_unknown_colour_is_an_error_with_file_colour_and_pixel(
    tmp_path: Path,
) -> None:
    pixels = np.full((80, 60, 3), GTA5_PALETTE[7], dtype=np.uint8)  # one of 4,800: 0.02 %
    pixels[2, 5] = (128, 64, 129)
    gta5(tmp_path)
    label = Path(str(opened("gta5", tmp_path).samples[0].label))
    save(label, pixels)
    text = bad_text(opened("gta5", tmp_path))
    assert text.startswith(f"{label}: label colours of no class")
    assert "got (128, 64, 129) (1 px), first at row 2, column 5" in text


def test_a_palette_with_another_colour_at_an_id_that_is_used_is_an_error(tmp_path: Path) -> None:
    palette = [value for i in range(35) for value in GTA5_PALETTE[i]]
    palette[3 * 7 : 3 * 8] = [1, 2, 3]
    source = gta5_label(tmp_path / "a", label_of([11, 7]), palette)
    text = bad_text(source)
    assert "of no class; got (1, 2, 3) at id 7 (127 px, first at row 0, column 1)" in text
    palette[3 * 7 : 3 * 8] = GTA5_PALETTE[8]
    text = bad_text(gta5_label(tmp_path / "b", label_of([11, 7]), palette))
    assert "the palette contradicts the ids; got (244, 35, 232) at id 7" in text
    assert "expected (128, 64, 128) there" in text
    # What the palette says of ids that no pixel has is nobody's business.
    source = gta5_label(tmp_path / "c", label_of([11, 8]), palette)
    assert source.read(source.samples[0])[1] is not None


def test_no_unknown_colour_becomes_a_real_class(tmp_path: Path) -> None:
    """Looking colours up by order gives these ones classes: parking becomes sky, bridge road."""
    void = [9, 10, 15, 16, 29, 5, 6, 14]  # parking, rails, bridge, tunnel, caravan, dynamic, ground
    source = gta5_label(tmp_path, coloured(GTA5_PALETTE[7], *(GTA5_PALETTE[i] for i in void)))
    label_HW = source.read(source.samples[0])[1]
    assert label_HW is not None
    assert label_HW[0, :9].tolist() == [0, *[255] * 8]


def test_gta5_labels_that_were_saved_as_grey_are_ids(tmp_path: Path) -> None:
    source = gta5_label(tmp_path, label_of([26, 34, 7]))
    with Image.open(str(source.samples[0].label)) as label:
        assert label.mode == "L"
    label_HW = source.read(source.samples[0])[1]
    assert label_HW is not None
    assert label_HW[0, :4].tolist() == [13, 255, 0, 0]
