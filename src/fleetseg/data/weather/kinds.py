"""Kinds of weather by name, and their random application to training images."""

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
"""(image, severity from 0 to 1, generator) -> new image; a pure function of these.

Severity 0 leaves the image unchanged. Each kind also takes a `Scene`, whose depth may be known;
without one it is guessed.
"""

KINDS: dict[str, Kind] = {"fog": fog, "rain": rain, "night": night, "snow": snow, "glare": glare}


def with_weather(
    image_HWC: Image_HWC, settings: WeatherConfig, rng: np.random.Generator
) -> Image_HWC:
    """Draw whether an image gets weather, which kind and how severe, and apply it.

    Labels are not used, so an image gets the same weather with, without or with a wrong label.
    """
    happens, which, how = (float(number) for number in rng.random(3))
    if happens >= settings.probability:
        return image_HWC
    least, most = settings.severity
    kind = settings.kinds[int(which * len(settings.kinds))]
    return KINDS[kind](image_HWC, least + (most - least) * how, rng)
