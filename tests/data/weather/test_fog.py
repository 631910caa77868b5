"""Fog: Koschmieder's law at its limits, and with a depth that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.data.weather.test_kinds import street

from fleetseg import rng
from fleetseg.data.synthetic.render import paint_frame
from fleetseg.data.synthetic.street import Drive
from fleetseg.data.weather.fog import airlight, clearness, fog, fog_per_m
from fleetseg.data.weather.physics import veil
from fleetseg.data.weather.scene import guess_scene


def test_a_veil_is_koschmieder_s_law() -> None:
    """J t + A (1 - t), by hand: 0.8 x 0.25 + 0.4 x 0.75 = 0.5."""
    picture = np.full((3, 2, 2), 0.8, np.float32)
    veil(
        picture,
        np.array([[1.0, 0.25], [0.0, 0.5]], np.float32),
        np.full((3, 1, 1), 0.4, np.float32),
    )
    assert picture[0] == pytest.approx(np.array([[0.8, 0.5], [0.4, 0.6]]))


@pytest.mark.parametrize("metres", [5.0, 50.0])
def test_light_falls_by_e_over_a_length_of_attenuation(metres: float) -> None:
    depth_HW = np.full((8, 8), metres, np.float32)
    scene = guess_scene(street(8, 8), rng.generator(0), depth_HW)
    clear_HW = clearness(scene, 1 / metres, 0.0, rng.generator(0))
    assert clear_HW == pytest.approx(1 / math.e, rel=1e-5)


def test_what_is_infinitely_far_is_airlight() -> None:
    """Whatever it was: both halves become one colour."""
    image_HWC = street()
    depth_HW = np.full(image_HWC.shape[:2], np.inf, np.float32)
    scene = guess_scene(image_HWC, rng.generator(0), depth_HW)
    made = fog(image_HWC, 1.0, rng.generator(1), scene)
    assert np.unique(made.reshape(-1, 3), axis=0).shape[0] == 1
    tone, warmth, _ = rng.generator(1).random(3)
    expected = np.floor(255 * airlight(scene, tone, warmth)[:, 0, 0] + 0.5)
    assert np.array_equal(made[0, 0], expected)


def test_what_is_at_the_lens_is_as_it_was_but_paler() -> None:
    image_HWC = street()
    scene = guess_scene(image_HWC, rng.generator(0), np.zeros(image_HWC.shape[:2], np.float32))
    made = fog(image_HWC, 0.01, rng.generator(1), scene)
    assert np.abs(made.astype(int) - image_HWC).max() <= 2


def test_visibility_is_what_the_severity_says() -> None:
    """Contrast of 2 % is the limit of seeing: e^(-3.912) = 0.02 (Koschmieder's 3.912 / b)."""
    assert 3.912 / fog_per_m(1.0) == pytest.approx(52, abs=1)
    assert 3.912 / fog_per_m(0.5) == pytest.approx(158, abs=2)
    assert fog_per_m(0.0) == 0


def test_a_painted_street_s_own_depth_fades_far_things_more_than_near_ones() -> None:
    painting = paint_frame(Drive(0, "train", "amber", "day"), 0, (96, 128))
    depth_HW = np.where(painting.depth_HW >= 999, np.inf, painting.depth_HW)
    scene = guess_scene(painting.image_HWC, rng.generator(0), depth_HW)
    made = fog(painting.image_HWC, 0.8, rng.generator(1), scene).astype(float)
    sigma = {}
    for name, where in (("near", depth_HW < 10), ("far", (depth_HW > 60) & np.isfinite(depth_HW))):
        sigma[name] = made[where].std(axis=0).mean() / painting.image_HWC[where].std(axis=0).mean()
    assert sigma["near"] > 0.4
    assert sigma["far"] < 0.15
