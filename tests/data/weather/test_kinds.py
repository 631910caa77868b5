"""Every kind of weather: bytes in and out, the same for the same numbers, worse where severer."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetseg import rng
from fleetseg.config import WeatherConfig
from fleetseg.data.weather.kinds import KINDS, with_weather

each_kind = pytest.mark.parametrize("kind", KINDS)


def street(height: int = 90, width: int = 120) -> np.ndarray:
    """A sky, houses with windows on both sides, a road with a line."""
    image_HWC = np.full((height, width, 3), (196, 214, 235), np.uint8)
    image_HWC[: height // 2, : width // 3] = (140, 90, 70)
    image_HWC[: height // 2, -width // 3 :] = (120, 120, 100)
    image_HWC[height // 2 :] = (95, 95, 98)
    image_HWC[height // 2 :, width // 2 - 1 : width // 2 + 1] = (230, 230, 225)
    image_HWC[4 : height // 2 : 8, 2 : width // 3 : 6] = (40, 45, 60)
    return image_HWC


def test_the_names_are_those_of_the_settings() -> None:
    (literal, _) = get_args(WeatherConfig.model_fields["kinds"].annotation)
    assert set(get_args(literal)) == set(KINDS) == set(WeatherConfig().kinds)


@each_kind
@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    severity=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
    fill=st.sampled_from(["noise", "black", "white"]),
)
def test_any_picture_stays_one(
    kind: str, height: int, width: int, severity: float, seed: int, fill: str
) -> None:
    generator = rng.generator(seed)
    image_HWC = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if fill != "noise":
        image_HWC[:] = 0 if fill == "black" else 255
    before = image_HWC.copy()
    with np.errstate(all="raise", under="ignore"):  # a NaN would be a black pixel in uint8
        made = KINDS[kind](image_HWC, severity, generator)
    assert made.dtype == np.uint8
    assert made.shape == image_HWC.shape
    assert made.flags.c_contiguous
    assert np.array_equal(image_HWC, before)


@each_kind
def test_none_of_it_is_the_picture_itself(kind: str) -> None:
    made = KINDS[kind](street(), 0.0, rng.generator(0))
    assert np.array_equal(made, street())


@each_kind
def test_a_read_only_picture_will_do(kind: str) -> None:
    image_HWC = street()
    image_HWC.flags.writeable = False
    assert KINDS[kind](image_HWC, 0.5, rng.generator(0)).shape == image_HWC.shape


@each_kind
def test_it_depends_on_its_generator_and_on_nothing_else(kind: str) -> None:
    one, same, other = (KINDS[kind](street(), 0.6, rng.generator(seed)) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@each_kind
def test_severer_is_further_from_the_picture(kind: str) -> None:
    """On the mean of several draws, as each looks another way."""
    away = [
        np.mean([
            np.abs(KINDS[kind](street(), severity, rng.generator(seed)).astype(int) - street())
            for seed in range(6)
        ])
        for severity in (0.15, 0.5, 1.0)
    ]  # fmt: skip
    assert away[0] < away[1] < away[2]
    assert away[1] > 8


@pytest.mark.parametrize("kind", ["fog", "rain", "snow"])
def test_thick_air_takes_contrast_away(kind: str) -> None:
    """Of what is far: the upper half, where houses and the sky are."""

    def contrast(severity: float) -> float:
        made = [KINDS[kind](street(), severity, rng.generator(seed))[:45] for seed in range(6)]
        return float(np.mean([picture.mean(axis=2).std() for picture in made]))

    assert contrast(0.0) > contrast(0.4) > contrast(0.7) > contrast(1.0)


def test_how_often_is_as_asked_for() -> None:
    image_HWC = street(12, 16)
    config = WeatherConfig(probability=0.3)
    made = [with_weather(image_HWC, config, rng.generator(seed)) for seed in range(400)]
    assert 90 < sum(picture is not image_HWC for picture in made) < 150


def test_only_the_kinds_and_severities_that_are_asked_for() -> None:
    image_HWC = street()
    config = WeatherConfig(probability=1, kinds=("night",), severity=(0.7, 0.7))
    generator = rng.generator(5)
    made = with_weather(image_HWC, config, rng.generator(5))
    generator.random(3)
    assert np.array_equal(made, KINDS["night"](image_HWC, 0.7, generator))


@pytest.mark.parametrize(
    "fields",
    [{"severity": (0.8, 0.2)}, {"severity": (0.0, 1.5)}, {"kinds": ()}, {"kinds": ("hail",)},
     {"probability": 1.5}],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"severity|at least 1|hail|less than"):
        WeatherConfig(**fields)
