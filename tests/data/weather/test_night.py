"""Night: darker, bluer, with lights that stay on, and never darker than the lamps allow."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.weather.test_kinds import street

from fleetseg import rng
from fleetseg.data.weather.night import night
from fleetseg.data.weather.physics import headlights, lamplight


@pytest.mark.parametrize("seed", range(4))
def test_it_is_darker(seed: int) -> None:
    means = [
        night(street(), severity, rng.generator(seed)).mean() if severity else street().mean()
        for severity in (0.0, 0.4, 0.9)
    ]
    assert means[1] < 0.6 * means[0]
    assert means[2] < 0.45 * means[0]


def test_the_sky_turns_dark_and_blue() -> None:
    sky = np.mean(
        [night(street(), 0.8, rng.generator(s))[2:20, 45:75] for s in range(5)], (0, 1, 2)
    )
    assert sky.mean() < 70
    assert sky[2] > sky[0]


def test_a_red_light_stays_on() -> None:
    image_HWC = street()
    image_HWC[55:58, 50:53] = (250, 30, 25)
    made = night(image_HWC, 0.9, rng.generator(0))
    assert made[56, 51, 0] > 180
    assert made[56, 51, 0] > made[56, 51, 1] + 80
    assert made[56, 56].max() < 120  # the road beside it


def test_light_of_a_lamp_falls_with_the_square_of_its_distance() -> None:
    """By hand: under a lamp 5.6 m up (its cover takes 0.6), 16 / (25 + 14), 3 m aside 9 more."""
    x, y, z = np.array([0, 3], np.float32), np.zeros(2, np.float32), np.full(2, 20, np.float32)
    light = lamplight(x, y, z, [(0.0, 5.6, 20.0)])
    assert light == pytest.approx([16 / 39, 16 / 48], rel=1e-4)


def test_headlights_reach_ahead_and_low() -> None:
    x, z = np.array([0, 6, 0, 0], np.float32), np.array([10, 10, 40, 10], np.float32)
    y = np.array([0, 0, 0, 2], np.float32)
    ahead, aside, far, high = headlights(x, y, z)
    assert ahead == pytest.approx(1 / (1 + (10 / 17) ** 2), rel=1e-5)
    assert max(aside, far, high) < 0.4 * ahead
