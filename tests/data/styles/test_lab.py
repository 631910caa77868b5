"""Lab: published values, a reference written from the standard, moments that become the target's.

scikit-image is not among the packages of this project: values are its documentation's and CIE's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.styles.pictures import picture

from fleetseg.data.styles.colour import image_of, lab_of
from fleetseg.data.styles.lab import moments, moved, with_moments

KNOWN = {
    (0, 0, 0): (0, 0, 0),
    (255, 255, 255): (100, 0, 0),
    (255, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 255, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 255): (32.2970, 79.1875, -107.8602),
    (119, 119, 119): (50.0344, 0, 0),
}
"""Of sRGB, D65 and the 2 degree observer."""
Doubles = npt.NDArray[np.float64]


def reference(image_HWC: npt.NDArray[np.uint8]) -> Doubles:
    """Lab from the standards' formulas, in float64 and without a table: (3, H, W)."""
    level = image_HWC.astype(np.float64) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    matrix = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    ratio = np.moveaxis(linear @ np.transpose(matrix) / [0.95047, 1.0, 1.08883], 2, 0)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(("rgb", "lab"), KNOWN.items(), ids=str)
def test_published_values(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    assert lab_of(np.array([[rgb]], np.uint8))[:, 0, 0] == pytest.approx(lab, abs=0.02)


def test_it_is_the_reference_of_any_colour() -> None:
    colours = np.random.Generator(np.random.Philox(0)).integers(0, 256, (64, 64, 3), np.uint8)
    assert np.abs(lab_of(colours) - reference(colours)).max() < 0.05
    assert np.abs(lab_of(colours // 20) - reference(colours // 20)).max() < 0.02  # the dark line


def test_there_and_back_is_the_same_image() -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    assert (image_of(lab_of(cube)) == cube).all()


def test_what_srgb_cannot_show_is_cut_and_does_not_wrap_around() -> None:
    lab = np.array([[150, -20, 50, 50], [0, 0, 120, 0], [0, 0, 0, -130]], np.float32)[:, None]
    shown = image_of(lab)[0].astype(int)
    assert (shown[0] == 255).all()
    assert (shown[1] == 0).all()
    assert shown[2, 0] == 255
    assert shown[3, 2] == 255


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 120), st.integers(121, 255))
def test_own_moments_are_the_identity(seed: int, low: int, high: int) -> None:
    image = picture(seed, 12, 16, low, high)
    same = with_moments(image, moments(image))
    assert np.abs(same.astype(int) - image).max() <= 1


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_moments_become_the_target_s_before_colours_are_cut(share: float) -> None:
    image, other = picture(1), picture(2, low=10, high=90)
    own, target = moments(image), moments(other)
    lab = reference(image)
    assert own == pytest.approx(np.stack([lab.mean(axis=(1, 2)), lab.std(axis=(1, 2))]), abs=0.02)
    changed = moved(lab_of(image), target, share).astype(np.float64)
    after = np.stack([changed.mean(axis=(1, 2)), changed.std(axis=(1, 2))])
    assert after == pytest.approx(own + share * (target - own), abs=1e-3)


def test_moments_of_the_image_that_is_shown() -> None:
    """Where nothing had to be cut, they are the target's within rounding to levels."""
    image, other = picture(1, low=90, high=160), picture(2, low=100, high=200)
    assert moments(with_moments(image, moments(other))) == pytest.approx(moments(other), abs=0.25)


def test_a_flat_channel_is_not_stretched() -> None:
    """Grey pictures have no colour to stretch: no noise of theirs becomes colour, and no NaN."""
    grey = picture(1)[:, :, :1].repeat(3, axis=2)
    one = np.full((6, 8, 3), 77, np.uint8)
    target = moments(picture(2))
    for image in (grey, one):
        changed = moved(lab_of(image), target)
        assert np.isfinite(changed).all()
        assert changed[1:].std(axis=(1, 2)) == pytest.approx([0, 0], abs=1e-3)
        assert changed.mean(axis=(1, 2)) == pytest.approx(target[0], abs=0.01)
