"""Kinds of weather by name, and how a training image gets one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fleetseg.config import WeatherConfig
from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.fog import fog
from fleetseg.data.weather.glare import glare
from fleetseg.data.weather.night import night
from fleetseg.data.weather.rain import rain
from fleetseg.data.weather.snow import snow

Kind = Callable[[Image_HWC, float, np.random.Generator], Image_HWC]
"""(picture, severity from 0 to 1, generator) -> another picture; a pure function of these.

At severity 0 it is the picture as it was. Each of them also takes a `Scene`, whose depth may be
known; without one it is guessed.
"""

KINDS: dict[str, Kind] = {"fog": fog, "rain": rain, "night": night, "snow": snow, "glare": glare}


def with_weather(
    image_HWC: Image_HWC, settings: WeatherConfig, rng: np.random.Generator
) -> Image_HWC:
    """Draw whether a picture gets weather, which kind and how severe, and put it on.

    No label is looked at, so that a picture gets the same with one, without and with a wrong one.
    """
    happens, which, how = (float(number) for number in rng.random(3))
    if happens >= settings.probability:
        return image_HWC
    least, most = settings.severity
    kind = settings.kinds[int(which * len(settings.kinds))]
    return KINDS[kind](image_HWC, least + (most - least) * how, rng)
