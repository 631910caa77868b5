"""Image corruptions, each kind at three severities: weather, noise, blur, JPEG, brightness.

All are pure functions of (picture, severity, generator): the same bytes in every call, as long as
Pillow's JPEG is the same build. Widths are relative to the image height, so that images of
different sizes compare. Kinds and severities are after Hendrycks, Dietterich, "Benchmarking Neural
Network Robustness to Common Corruptions and Perturbations" (2019),
https://arxiv.org/abs/1903.12261: their severities 1, 3 and 5 of noise, JPEG and brightness; weather
is that of `data.weather`.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from fleetseg import rng
from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.fog import fog
from fleetseg.data.weather.kinds import Kind
from fleetseg.data.weather.night import night
from fleetseg.data.weather.rain import rain

SEVERITIES = (1, 2, 3)

Corruption = Callable[[Image_HWC, int, np.random.Generator], Image_HWC]
"""(picture, severity from 1 to 3, generator) -> corrupted picture of the same size."""

_WEATHER = (0.3, 0.6, 0.9)  # severities of data.weather, out of 1
_SIGMA = (0.08, 0.18, 0.38)  # relative to white
_BLUR = (0.004, 0.008, 0.016)  # radius, relative to the height
_QUALITY = (25, 15, 7)
_LIFT = (0.1, 0.3, 0.5)  # relative to white


def corrupted(kind: str, severity: int, image_HWC: Image_HWC, frame: str, seed: int) -> Image_HWC:
    """Corrupt a frame; the result is the same in every call, whatever the model."""
    draws = rng.generator(seed, severity, frame, f"release {kind}")
    return CORRUPTIONS[kind](image_HWC, severity, draws)


def _weather(kind: Kind) -> Corruption:
    def put_on(image_HWC: Image_HWC, severity: int, draws: np.random.Generator) -> Image_HWC:
        return kind(image_HWC, _WEATHER[severity - 1], draws)

    return put_on


def _noise(image_HWC: Image_HWC, severity: int, draws: np.random.Generator) -> Image_HWC:
    grain_HWC = draws.standard_normal(image_HWC.shape, dtype=np.float32)
    return _rounded(image_HWC + grain_HWC * np.float32(255 * _SIGMA[severity - 1]))


def _blur(image_HWC: Image_HWC, severity: int, draws: np.random.Generator) -> Image_HWC:
    radius_px = _BLUR[severity - 1] * image_HWC.shape[0]
    return np.array(Image.fromarray(image_HWC).filter(ImageFilter.GaussianBlur(radius_px)))


def _jpeg(image_HWC: Image_HWC, severity: int, draws: np.random.Generator) -> Image_HWC:
    file = io.BytesIO()
    Image.fromarray(image_HWC).save(file, format="JPEG", quality=_QUALITY[severity - 1])
    return np.array(Image.open(file))


def _brightness(image_HWC: Image_HWC, severity: int, draws: np.random.Generator) -> Image_HWC:
    """Raise the value of HSV and keep hue and saturation: all channels grow by one factor."""
    value_HW1 = image_HWC.max(axis=2, keepdims=True).astype(np.float32)
    lifted_HW1 = np.minimum(value_HW1 + np.float32(255 * _LIFT[severity - 1]), 255)
    factor_HW1 = np.divide(lifted_HW1, value_HW1, out=np.zeros_like(value_HW1), where=value_HW1 > 0)
    grey_HW1 = np.where(value_HW1 > 0, np.float32(0), lifted_HW1)  # black has no hue to keep
    return _rounded(image_HWC * factor_HW1 + grey_HW1)


def _rounded(image_HWC: np.ndarray) -> Image_HWC:
    rounded_HWC: Image_HWC = np.clip(np.rint(image_HWC), 0, 255).astype(np.uint8)
    return rounded_HWC


CORRUPTIONS: dict[str, Corruption] = {
    "fog": _weather(fog),
    "rain": _weather(rain),
    "night": _weather(night),
    "noise": _noise,
    "blur": _blur,
    "jpeg": _jpeg,
    "brightness": _brightness,
}
