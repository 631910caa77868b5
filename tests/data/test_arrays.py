"""One picture or label map, the same from whatever holds it, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fleetseg.data.arrays import raw_image, to_ids, to_rgb
from fleetseg.data.images import as_rgb
from fleetseg.errors import DataError

WHERE = "vehicle 'a', sample 3"


def noise(seed: int, *shape: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.integers(0, 256, shape, dtype=np.uint8)


# Every way to hold the same RGB picture (uint8, HWC), with how its floating-point numbers go.
HOLDERS = {
    "uint8 HWC": (lambda x: x, True),
    "uint8 CHW": (lambda x: x.transpose(2, 0, 1), True),
    "int64 HWC": (lambda x: x.astype(np.int64), True),
    "uint16 HWC": (lambda x: x.astype(np.uint16), True),
    "float32 to 255": (lambda x: x.astype(np.float32), False),
    "float64 to 1": (lambda x: x / 255, True),
    "float32 to 1, CHW": (lambda x: (x / 255).astype(np.float32).transpose(2, 0, 1), True),
    "tensor uint8 CHW": (lambda x: torch.from_numpy(x.copy()).permute(2, 0, 1), True),
    "tensor uint8 HWC": (lambda x: torch.from_numpy(x.copy()), True),
    "tensor float CHW": (lambda x: torch.from_numpy(x / 255).float().permute(2, 0, 1), True),
    "tensor half to 1": (lambda x: torch.from_numpy(x / 255).half().permute(2, 0, 1), True),
    "PIL RGB": (Image.fromarray, True),
    "RGBA": (lambda x: np.concatenate([x, x[..., :1]], axis=2), True),
    "PIL RGBA": (lambda x: Image.fromarray(x).convert("RGBA"), True),
    "not contiguous": (lambda x: x[:, ::-1].copy()[:, ::-1], True),
}


@given(
    holder=st.sampled_from(sorted(HOLDERS)),
    size_hw=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    seed=st.integers(0, 99),
)
def test_a_picture_is_the_same_in_every_holder(
    holder: str, size_hw: tuple[int, int], seed: int
) -> None:
    picture_HWC = noise(seed, *size_hw, 3)
    hold, unit_range = HOLDERS[holder]
    raw_HWC = raw_image(hold(picture_HWC), size_hw, WHERE)
    rgb_HWC = to_rgb(raw_HWC, unit_range=unit_range)
    assert rgb_HWC.dtype == np.uint8
    assert rgb_HWC.flags.c_contiguous
    np.testing.assert_array_equal(rgb_HWC, picture_HWC)


@pytest.mark.parametrize(
    "hold",
    [
        lambda x: x,
        lambda x: x[..., None],
        lambda x: x[None],
        lambda x: x / 255,
        lambda x: torch.from_numpy(x)[None],
        Image.fromarray,
    ],
)
def test_grey_is_repeated(hold: object) -> None:
    grey_HW = noise(1, 6, 7)
    raw_HWC = raw_image(hold(grey_HW), (6, 7), WHERE)  # type: ignore[operator]
    np.testing.assert_array_equal(
        to_rgb(raw_HWC, unit_range=True), np.repeat(grey_HW[..., None], 3, axis=2)
    )


def test_black_and_white_is_0_and_255() -> None:
    mask_HW = noise(1, 6, 7) > 127
    for held in (mask_HW, Image.fromarray(mask_HW)):
        rgb_HWC = to_rgb(raw_image(held, (6, 7), WHERE), unit_range=True)
        np.testing.assert_array_equal(rgb_HWC[..., 0], np.where(mask_HW, 255, 0))


def test_a_picture_that_is_right_is_not_copied() -> None:
    picture_HWC = noise(1, 6, 7, 3)
    assert np.shares_memory(
        picture_HWC, to_rgb(raw_image(picture_HWC, (6, 7), WHERE), unit_range=True)
    )


def test_what_could_be_either_goes_by_the_custom_of_its_holder() -> None:
    cube = noise(1, 3, 3, 3)
    as_array = to_rgb(raw_image(cube, (3, 3), WHERE), unit_range=True)
    as_tensor = to_rgb(raw_image(torch.from_numpy(cube), (3, 3), WHERE), unit_range=True)
    np.testing.assert_array_equal(as_array, cube)
    np.testing.assert_array_equal(as_tensor, cube.transpose(1, 2, 0))


RGB = noise(2, 6, 7, 3)
NAN = np.full((6, 7, 3), np.nan, np.float32)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (RGB[:5], "label and image differ in size; got label 7x6, expected 7x5 as the image"),
        (RGB.transpose(1, 0, 2), "are swapped: transpose it"),
        (torch.from_numpy(RGB[:5]).permute(2, 0, 1), "got label 7x6, expected 7x5"),
        (noise(1, 6, 7, 2), "channels; got 2"),
        (noise(1, 5, 6, 7), "channels; got 5"),
        (RGB[None], "not an image; got an array of shape (1, 6, 7, 3)"),
        (NAN, "NaN or infinite"),
        (NAN * np.inf, "NaN or infinite"),
        (RGB.astype(np.float32) / 127.5 - 1, "got -1 to 0.99"),
        (RGB.astype(np.float32) * 2, "It looks normalised"),
        (RGB.astype(np.uint16) * 257, "image >> 8 for 16 bits"),
        (RGB.astype(np.int32) - 300, "the image's values are not colours"),
        (RGB.astype(complex), "the image cannot be read; got an array of complex128"),
        (RGB.tolist(), "numpy.asarray(...)"),
        ("car.png", "got 'car.png'"),
        (Path("car.png"), "Open it: PIL.Image.open(path)"),
        (None, "got None"),
        (Image.new("HSV", (7, 6)), "pixel mode HSV"),
        (torch.zeros(3, 6, 7).to_sparse(), "the image cannot be read (TypeError: "),
        (torch.empty(3, 6, 7, device="meta"), "the image cannot be read (NotImplementedError: "),
        (np.ma.masked_less(RGB, 9), "the image hides "),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_picture_of_its_label_is_refused(image: object, words: str) -> None:
    with pytest.raises(DataError) as refused:
        raw_image(image, (6, 7), WHERE)
    assert str(refused.value).startswith(f"{WHERE}: ")
    assert words in str(refused.value)


LABELS = {
    "uint8": lambda x: x,
    "int64": lambda x: x.astype(np.int64),
    "int32": lambda x: x.astype(np.int32),
    "uint16": lambda x: x.astype(np.uint16),
    "(H, W, 1)": lambda x: x[..., None],
    "(1, H, W)": lambda x: x[None].astype(np.int64),
    "tensor": lambda x: torch.from_numpy(x.astype(np.int64)),
    "tensor (1, H, W)": lambda x: torch.from_numpy(x.copy())[None],
    "PIL L": Image.fromarray,
    "PIL P": lambda x: Image.fromarray(x).convert("P"),
    "PIL I": lambda x: Image.fromarray(x.astype(np.int32)),
}


@given(
    holder=st.sampled_from(sorted(LABELS)),
    size_hw=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 99),
)
def test_a_label_is_the_same_in_every_holder(
    holder: str, size_hw: tuple[int, int], seed: int
) -> None:
    ids_HW = noise(seed, *size_hw) % 5
    if holder != "PIL P":  # conversion to a palette keeps colours, not ids: 0 stays 0
        ids_HW = np.where(ids_HW == 4, 255, ids_HW).astype(np.uint8)
        held = LABELS[holder](ids_HW)
    else:
        held = Image.fromarray(ids_HW)
        held.putpalette([7] * 768)
    read_HW = to_ids(held, 5, WHERE)
    assert read_HW.dtype == np.uint8
    np.testing.assert_array_equal(read_HW, ids_HW)


def test_bool_labels_are_two_classes_and_negative_ids_of_custom_are_ignored() -> None:
    mask_HW = noise(1, 4, 5) > 127
    np.testing.assert_array_equal(to_ids(mask_HW, 2, WHERE), mask_HW.astype(np.uint8))
    for void in (-1, -100):
        ids_HW = np.where(mask_HW, 1, void)
        np.testing.assert_array_equal(to_ids(ids_HW, 2, WHERE), np.where(mask_HW, 1, 255))


ZEROS = np.zeros((6, 7), np.int64)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (ZEROS + 3, "got 3 (42 px), expected 0-1, or 255 to ignore"),
        (ZEROS + 2, "If 2 means void, write 255; if ids count from 1, subtract 1"),
        (ZEROS + 256, "got 256 (42 px)"),  # would be class 0 in 8 bits
        (ZEROS - 7, "got -7 (42 px)"),
        (ZEROS.astype(np.float32), "not integers; got float32"),
        (np.zeros((6, 7, 3), np.uint8), "colours instead of ids"),
        (Image.new("RGB", (7, 6)), "a picture of mode RGB"),
        (np.zeros((2, 6, 7), np.uint8), "label.argmax(0)"),
        (np.zeros((6, 7, 2), np.uint8), "label.argmax(2)"),
        (np.zeros((0, 7), np.uint8), "empty"),
        (np.zeros(7, np.uint8), "not a label map; got an array of shape (7,)"),
        (3, "the label cannot be read; got int"),
        (None, "Leave out samples without a label"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_label_map_is_refused(label: object, words: str) -> None:
    with pytest.raises(DataError) as refused:
        to_ids(label, 2, WHERE)
    assert str(refused.value).startswith(f"{WHERE}: ")
    assert words in str(refused.value)


def test_a_turned_photo_is_turned_upright() -> None:
    photo = Image.fromarray(noise(1, 4, 6, 3))
    photo.getexif()[0x0112] = 6  # a quarter to the right
    raw_HWC = raw_image(photo, (6, 4), WHERE)
    np.testing.assert_array_equal(raw_HWC, np.rot90(np.asarray(photo), -1))


def test_a_file_that_was_closed_or_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "car.png"
    Image.fromarray(noise(3, 60, 70, 3)).save(path)
    closed = Image.open(path)
    closed.close()
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as cut:
        for image in (closed, cut):
            with pytest.raises(DataError, match=rf"{WHERE}: the image cannot be read \("):
                raw_image(image, (60, 70), WHERE)
            with pytest.raises(DataError, match=rf"{WHERE}: the image cannot be read \("):
                as_rgb(image, WHERE)


def test_what_a_mask_hides_in_a_label_is_void() -> None:
    ids = np.array([[0, 1], [1, 0]], np.int8)
    hidden = np.ma.masked_array(ids, mask=[[False, True], [False, False]])
    assert to_ids(hidden, 2, WHERE).tolist() == [[0, 255], [1, 0]]
    assert to_ids(np.ma.masked_array(ids), 2, WHERE).tolist() == ids.tolist()
