"""Pictures of predictions: colours, overlays and legends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fleetseg.data.labels import CAMVID_11, CITYSCAPES_19
from fleetseg.errors import DataError
from fleetseg.evaluation.pictures import (
    colourise,
    contact_sheet,
    overlay,
    palette_image,
    side_by_side,
)

SIZE = (48, 64)


def frame(size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    image = np.full((*size, 3), (10, 200, 30), np.uint8)
    label = np.full(size, 3, np.uint8)
    label[:10] = 255
    return image, label, {"fleet": np.full(size, 8, np.uint8)}


def colours_of(picture: Image.Image) -> set[tuple[int, ...]]:
    return set(map(tuple, np.unique(np.asarray(picture).reshape(-1, 3), axis=0).tolist()))


def test_classes_get_their_colours_and_ignored_is_black():
    rgb = colourise(np.array([[0, 3], [10, 255]], np.uint8), CAMVID_11)
    assert rgb.tolist() == [[[128, 128, 128], [128, 64, 128]], [[0, 128, 192], [0, 0, 0]]]
    assert rgb.dtype == np.uint8


def test_ids_outside_the_space_are_named():
    with pytest.raises(DataError, match=r"'camvid11'; got \[11, 33\]"):
        colourise(np.array([[0, 11, 33]], np.uint8), CAMVID_11)


def test_pixels_of_a_palette_image_are_ids():
    ids_HW = np.array([[0, 3], [10, 255]], np.uint8)
    image = palette_image(ids_HW, CAMVID_11)
    assert np.array_equal(np.asarray(image), ids_HW)
    assert np.array_equal(np.asarray(image.convert("RGB")), colourise(ids_HW, CAMVID_11))


def test_an_overlay_is_half_image_and_half_class():
    image_HWC = np.full((1, 2, 3), 100, np.uint8)
    blended = overlay(image_HWC, np.array([[0, 255]], np.uint8), CAMVID_11)
    assert np.asarray(blended).tolist() == [[[114] * 3, [100] * 3]]
    with pytest.raises(DataError, match=r"differ in size; got \(2, 1\)"):
        overlay(image_HWC, np.zeros((2, 1), np.uint8), CAMVID_11)


def test_panels_stand_in_order_at_one_height():
    picture = np.asarray(side_by_side(*frame(), CAMVID_11))
    middle = picture[28 + 32 + 200]  # a line through the panels
    changes = np.flatnonzero((middle[1:] != middle[:-1]).any(axis=1)) + 1
    inside = [tuple(middle[i].tolist()) for i in changes[::2]]
    assert inside == [(10, 200, 30), (128, 64, 128), (64, 0, 128)]
    assert changes.tolist() == [28, 428, 442, 842, 856, 1256]  # 400 wide, 14 apart
    assert picture.shape[1] == 28 + 3 * 400 + 2 * 14 + 28


def test_without_truth_there_is_no_truth_panel_and_no_ignored_in_the_legend():
    image, _, preds = frame()
    picture = side_by_side(image, None, preds, CAMVID_11)
    assert picture.width == 28 + 2 * 400 + 14 + 28
    assert (0, 0, 0) not in colours_of(picture)
    assert (64, 0, 128) in colours_of(picture)


def test_label_maps_keep_their_colours_at_any_resolution():
    image, label, preds = frame()
    large = {name: np.kron(ids, np.ones((3, 3), np.uint8)) for name, ids in preds.items()}
    assert side_by_side(image, label, large, CAMVID_11).size == (
        side_by_side(image, label, preds, CAMVID_11).size
    )


@pytest.mark.parametrize(("width", "panel"), [(64, 400), (480, 480), (2048, 640)])
def test_small_images_are_enlarged_and_large_ones_shrunk(width: int, panel: int):
    image, label, preds = frame((width // 2, width))
    assert side_by_side(image, label, preds, CAMVID_11).width == 2 * 28 + 3 * panel + 2 * 14


def test_a_contact_sheet_stacks_rows_over_one_legend():
    one = side_by_side(*frame(), CAMVID_11)
    sheet = contact_sheet([frame()] * 3, ["a", "b", "a very long title " * 99], CAMVID_11)
    assert sheet.width == one.width
    assert sheet.height == one.height + 3 * 26 + 2 * (300 + 22)  # titles, two more rows and gaps


def test_many_classes_and_long_names_stay_inside():
    image, _, _ = frame()
    every = (np.arange(SIZE[0] * SIZE[1]) % 19).astype(np.uint8).reshape(SIZE)
    picture = np.asarray(side_by_side(image, every, {"x" * 200: every}, CITYSCAPES_19))
    background = picture[0, 0]
    for border in (picture[:28], picture[-20:], picture[:, :28], picture[:, -28:]):
        assert (border == background).all()


def test_rows_must_fit_together():
    image, label, preds = frame()
    with pytest.raises(DataError, match="0 rows and 0 titles"):
        contact_sheet([], [], CAMVID_11)
    with pytest.raises(DataError, match="1 rows and 2 titles"):
        contact_sheet([frame()], ["a", "b"], CAMVID_11)
    with pytest.raises(DataError, match="differ in their columns"):
        contact_sheet([frame(), (image, label, {"other": preds["fleet"]})], ["a", "b"], CAMVID_11)


@pytest.mark.real_data
def test_a_real_frame_is_shown_pixel_by_pixel(real_data: Path):
    file = sorted((real_data / "camvid" / "val").glob("*.png"))[0]
    image = np.array(Image.open(file).convert("RGB"))
    label = np.array(Image.open(real_data / "camvid" / "valannot" / file.name))
    label[label == 11] = 255
    picture = np.asarray(side_by_side(image, label, {}, CAMVID_11))
    height, width = label.shape
    assert np.array_equal(picture[60 : 60 + height, 28 : 28 + width], image)
    assert np.array_equal(
        picture[60 : 60 + height, 42 + width : 42 + 2 * width], colourise(label, CAMVID_11)
    )
