"""What a picture is guessed to show: sky, ground and depth, without a label."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.weather.test_kinds import street

from fleetseg import rng
from fleetseg.data.weather.noise import clouds, grain
from fleetseg.data.weather.scene import guess_scene


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 200))
def test_depth_never_grows_towards_the_camera(seed: int) -> None:
    scene = guess_scene(street(), rng.generator(seed))
    assert (np.diff(scene.depth_HW, axis=0) <= 0).all()
    assert scene.depth_HW.min() > 0.5
    assert np.isfinite(scene.depth_HW).all()


def test_sky_and_road_are_found() -> None:
    scene = guess_scene(street(), rng.generator(0))
    assert scene.sky_HW[2:35, 46:74].min() > 0.8
    assert scene.sky_HW[:35, :34].max() < 0.2
    assert scene.sky_HW[50:].max() == 0
    assert scene.ground_HW[60:85, 10:50].min() > 0.6
    assert scene.ground_HW[:35].max() < 0.01


def test_a_street_under_a_roof_has_no_sky() -> None:
    image_HWC = street()
    image_HWC[:45, 40:80] = (30, 32, 30)
    assert guess_scene(image_HWC, rng.generator(0)).sky_HW.max() < 0.3


def test_a_given_depth_is_taken_as_it_is() -> None:
    depth_HW = np.full((90, 120), 12.5, np.float32)
    depth_HW[:10] = np.inf
    scene = guess_scene(street(), rng.generator(0), depth_HW)
    assert np.array_equal(scene.depth_HW[10:], depth_HW[10:])
    assert np.array_equal(scene.sky_HW > 0, np.isinf(depth_HW))


def test_noise_covers_pictures_larger_than_its_tile() -> None:
    assert grain((1200, 40), rng.generator(0)).shape == (1200, 40)
    assert abs(float(grain((300, 400), rng.generator(0)).std()) - 1) < 0.02
    assert clouds((300, 700), rng.generator(0)).shape == (300, 700)
