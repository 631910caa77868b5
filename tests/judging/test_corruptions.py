"""Pictures made worse: the same each time, worse with severity, and as the formulas say."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from fleetseg.judging.corruptions import CORRUPTIONS, SEVERITIES, corrupted

RED_HW, GREEN_HW = np.meshgrid(np.arange(40, 200, 4), np.arange(30, 150, 4), indexing="ij")
RAMP_HWC = np.stack([RED_HW, GREEN_HW, np.full((40, 30), 90)], axis=2).astype(np.uint8)
PHOTO_HWC = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_it_is_a_pure_function_of_frame_and_seed(kind: str) -> None:
    before = PHOTO_HWC.copy()
    once, again = (corrupted(kind, 2, PHOTO_HWC, "a", 7) for _ in range(2))
    assert once.dtype == np.uint8
    assert once.shape == PHOTO_HWC.shape
    assert (once == again).all()
    assert (once != PHOTO_HWC).any()
    assert (before == PHOTO_HWC).all()
    draws = kind in ("fog", "rain", "night", "noise")
    for other in (corrupted(kind, 2, PHOTO_HWC, "b", 7), corrupted(kind, 2, PHOTO_HWC, "a", 8)):
        assert (other != once).any() == draws


@pytest.mark.parametrize("kind", ["noise", "blur", "jpeg", "brightness", "fog"])
def test_each_severity_is_further_from_the_picture(kind: str) -> None:
    away = [
        np.abs(corrupted(kind, severity, PHOTO_HWC, "a", 0).astype(float) - PHOTO_HWC).mean()
        for severity in SEVERITIES
    ]
    assert away == sorted(away)
    assert away[0] < away[-1]


def test_noise_has_its_width() -> None:
    grey_HWC = np.full((200, 200, 3), 128, np.uint8)
    noisy_HWC = corrupted("noise", 1, grey_HWC, "a", 0).astype(float)
    assert noisy_HWC.mean() == pytest.approx(128, abs=0.5)
    assert noisy_HWC.std() == pytest.approx(0.08 * 255, rel=0.02)


def test_brightness_lifts_the_value_and_leaves_hue_and_saturation() -> None:
    """By the standard library's HSV."""
    lifted_HWC = corrupted("brightness", 1, RAMP_HWC, "a", 0)
    for row, col in ((0, 0), (10, 20), (35, 5)):
        h, s, v = colorsys.rgb_to_hsv(*(RAMP_HWC[row, col] / 255))
        wanted = 255 * np.array(colorsys.hsv_to_rgb(h, s, min(v + 0.1, 1)))
        assert lifted_HWC[row, col] == pytest.approx(wanted, abs=0.51)


def test_black_becomes_grey_and_white_stays() -> None:
    ends_HWC = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    assert corrupted("brightness", 2, ends_HWC, "a", 0).tolist() == [[[76, 76, 76], [255] * 3]]
