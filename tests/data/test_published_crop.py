"""The crop of published code: resized without a filter, padded on both sides, cut out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetseg.config import TrainingConfig
from fleetseg.data.augment import Augment
from fleetseg.data.labels import IGNORE
from fleetseg.data.published_crop import unfiltered_crop


def sample(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.Philox(height))
    image_HWC = generator.integers(0, 256, (height, width, 3), np.uint8)
    return image_HWC, generator.integers(0, 5, (height, width), np.uint8)


def test_a_quarter_looks_at_two_pixels_of_four_by_hand() -> None:
    image_HWC = np.zeros((8, 8, 3), np.uint8)
    image_HWC[:, 1], image_HWC[:, 2], image_HWC[:, 3] = 40, 80, 200
    label_HW = np.tile(np.arange(8, dtype=np.uint8), (8, 1))
    image, label = unfiltered_crop(image_HWC, label_HW, (2, 2), 0.25, (0.0, 0.0))
    # The centre of the first target pixel is at source 1.5; a filter would see 0, 40, 80, 200, ...
    assert image[..., 0].tolist() == [[60, 0], [60, 0]]
    assert label.tolist() == [[0, 4], [0, 4]]


def test_what_is_too_small_is_padded_on_both_sides_by_hand() -> None:
    image_HWC, label_HW = np.full((2, 4, 3), 9, np.uint8), np.ones((2, 4), np.uint8)
    image, label = unfiltered_crop(image_HWC, label_HW, (4, 4), 1.0, (0.0, 0.99))
    # Two rows are missing: (4 - 2) // 2 + 1 = 2 on each side, six rows, of which four are taken.
    assert label[:, 0].tolist() == [IGNORE, IGNORE, 1, 1]
    assert image[:, 0, 0].tolist() == [0, 0, 9, 9]
    _, lower = unfiltered_crop(image_HWC, label_HW, (4, 4), 1.0, (0.99, 0.0))
    assert lower[:, 0].tolist() == [IGNORE, 1, 1, IGNORE]  # int(0.99 * 2) = 1: never the last


@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.37])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.4, 0.9)])
def test_sizes_are_rounded_up_and_every_crop_is_whole(
    scale: float, place: tuple[float, float]
) -> None:
    image, label = unfiltered_crop(*sample(23, 31), (12, 16), scale, place)
    assert (image.shape, label.shape) == ((12, 16, 3), (12, 16))


def test_without_a_scale_it_is_a_window() -> None:
    image_HWC, label_HW = sample(10, 12)
    image, label = unfiltered_crop(image_HWC, label_HW, (4, 6), 1.0, (0.5, 0.5))
    assert np.array_equal(image, image_HWC[3:7, 3:9])
    assert np.array_equal(label, label_HW[3:7, 3:9])


def test_an_experiment_asks_for_it_with_the_draws_that_it_has_anyway() -> None:
    training = TrainingConfig(
        crop=(12, 16),
        scale=(0.5, 1.5),
        flip=False,
        colour_jitter=0.0,
        habits={"unfiltered_crop": True},
    )
    numbers_8 = np.array([0.1, 0.3, 0.6, 0.9, 0.5, 0.5, 0.5, 0.5])
    written = np.empty((12, 16, 3), np.uint8)
    label = Augment.from_config(training, (23, 31)).write(sample(23, 31), numbers_8, written)
    expected = unfiltered_crop(*sample(23, 31), (12, 16), 0.5 + 0.1, (0.3, 0.6))
    assert np.array_equal(written, expected[0])
    assert np.array_equal(label, expected[1])


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(3, 40), st.integers(3, 40)),
    crop_hw=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    scale=st.floats(0.3, 2.0),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
)
def test_it_is_the_published_code(
    size: tuple[int, int], crop_hw: tuple[int, int], scale: float, place: tuple[float, float]
) -> None:
    """`transform_cv2.RandomResizedCrop.__call__`, with cv2's labels (floor) and our bilinear."""
    image_HWC, label_HW = sample(*size)
    im_h, im_w = (math.ceil(el * scale) for el in size)
    lb = label_HW[np.arange(im_h) * size[0] // im_h][:, np.arange(im_w) * size[1] // im_w]
    im, _ = unfiltered_crop(image_HWC, label_HW, (im_h, im_w), scale, (0.0, 0.0))
    pad_h = (crop_hw[0] - im_h) // 2 + 1 if im_h < crop_hw[0] else 0
    pad_w = (crop_hw[1] - im_w) // 2 + 1 if im_w < crop_hw[1] else 0
    im = np.pad(im, ((pad_h, pad_h), (pad_w, pad_w), (0, 0)))
    lb = np.pad(lb, ((pad_h, pad_h), (pad_w, pad_w)), "constant", constant_values=255)
    sh, sw = int(place[0] * (im.shape[0] - crop_hw[0])), int(place[1] * (im.shape[1] - crop_hw[1]))
    image, label = unfiltered_crop(image_HWC, label_HW, crop_hw, scale, place)
    assert np.array_equal(image, im[sh : sh + crop_hw[0], sw : sw + crop_hw[1]])
    assert np.array_equal(label, lb[sh : sh + crop_hw[0], sw : sw + crop_hw[1]])
