"""Measure the style of an image, or of a vehicle's images, and apply it to other images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.config import StyleConfig
from fleetseg.data.sample import Image_HWC, Pairs
from fleetseg.data.styles.lab import moments, with_moments
from fleetseg.data.styles.spectrum import amplitudes, with_amplitudes

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Style:
    """A target style, and how far to move towards it: lambda of own + lambda (target - own)."""

    kind: str  # a name in KINDS
    numbers: Floats  # of that kind's shape
    share: float = 1.0


@dataclass(frozen=True)
class Kind:
    """A kind of style.

    Args:
        shape: settings, image size -> shape of a style's numbers.
        measure: image, shape -> the image's numbers.
        apply: image, a style's numbers, share -> the image in that style.
        limits: shape -> the least and greatest numbers that any image can have.
        typical: the same for road images; values outside are clipped before noise is added.
        mixes: for each image, the share of the way to the style is drawn from 0 to 1.
        mirrored: the last two axes hold each number twice, except the one in the middle.
    """

    shape: Callable[[StyleConfig, tuple[int, int]], tuple[int, ...]]
    measure: Callable[[Image_HWC, tuple[int, ...]], Floats]
    apply: Callable[[Image_HWC, Floats, float], Image_HWC]
    limits: Callable[[tuple[int, ...]], tuple[Floats, Floats]]
    typical: Callable[[tuple[int, ...]], tuple[Floats, Floats]]
    mixes: bool = False
    mirrored: bool = False


def styled(image_HWC: Image_HWC, style: Style) -> Image_HWC:
    """Return an image in another style, clipped, rounded, and of the same size."""
    return KINDS[style.kind].apply(image_HWC, style.numbers, style.share)


def shape_of(config: StyleConfig, size_hw: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of one style's numbers, for images of size (height, width)."""
    return KINDS[config.kind].shape(config, size_hw)


def measured(
    train: Pairs, config: StyleConfig, size_hw: tuple[int, int], *, clipped: bool = False
) -> Floats:
    """Measure the styles of a vehicle: one per image, or a single one, the mean over its images.

    At most `config.images` images are measured, evenly chosen and in order. Deviations are averaged
    too, not computed over all pixels, because styles are applied to single images. `clipped` limits
    each image's numbers to the range typical of road images, so that no image counts more.

    Returns:
        float32 of shape (styles, *shape_of(config, size_hw)).
    """
    kind, shape = KINDS[config.kind], shape_of(config, size_hw)
    styles = [kind.measure(train[k][0], shape) for k in evenly(len(train), config.images)]
    if clipped:
        styles = [np.clip(style, *kind.typical(shape)) for style in styles]
    if config.per == "image":
        return np.stack(styles)
    mean: npt.NDArray[np.float64] = np.stack(styles).mean(axis=0, dtype=np.float64)
    return mean[None].astype(np.float32)


def evenly(count: int, most: int) -> list[int]:
    """Choose at most `most` of 0 .. count - 1, evenly spaced.

    >>> evenly(3, 5), evenly(10, 4)
    ([0, 1, 2], [0, 2, 5, 7])
    """
    chosen = min(count, most)
    return [k * count // chosen for k in range(chosen)]


def _fda_shape(config: StyleConfig, size_hw: tuple[int, int]) -> tuple[int, ...]:
    return (3, *[2 * config.fda.window + 1] * 2)


def _cfsi_shape(config: StyleConfig, size_hw: tuple[int, int]) -> tuple[int, ...]:
    return (3, *[2 * int(config.cfsi.share * size) + 1 for size in size_hw])


def _lab_shape(config: StyleConfig, size_hw: tuple[int, int]) -> tuple[int, ...]:
    return (2, 3)


def _measure_window(image_HWC: Image_HWC, shape: tuple[int, ...]) -> Floats:
    return amplitudes(image_HWC, (shape[1] // 2, shape[2] // 2))


def _apply_window(image_HWC: Image_HWC, target_CUV: Floats, share: float) -> Image_HWC:
    changed_CHW = with_amplitudes(image_HWC, target_CUV, share)
    levels_CHW = np.rint(np.clip(changed_CHW, 0, 255)).astype(np.uint8)
    return np.ascontiguousarray(levels_CHW.transpose(1, 2, 0))


def _levels(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    return np.zeros(shape, np.float32), np.full(shape, 255, np.float32)


def _road_amplitudes(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    low, high = np.zeros(shape, np.float32), np.full(shape, 64, np.float32)
    high[:, shape[1] // 2, shape[2] // 2] = 255  # mean levels
    return low, high


def _lab_limits(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    # Range of all sRGB colours: L 0 to 100, a -87 to 99, b -108 to 95; deviations: half of that.
    low = np.array([[0, -87, -108], [0, 0, 0]], np.float32)
    return low, np.array([[100, 99, 95], [50, 93, 102]], np.float32)


def _road_colours(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    low = np.array([[0, -30, -30], [0, 0, 0]], np.float32)
    return low, np.array([[100, 30, 30], [50, 30, 30]], np.float32)


KINDS: dict[str, Kind] = {
    "fda": Kind(
        _fda_shape, _measure_window, _apply_window, _levels, _road_amplitudes, mirrored=True
    ),
    "cfsi": Kind(
        _cfsi_shape,
        _measure_window,
        _apply_window,
        _levels,
        _road_amplitudes,
        mixes=True,
        mirrored=True,
    ),
    "lab": Kind(
        _lab_shape,
        lambda image_HWC, _: moments(image_HWC),
        with_moments,
        _lab_limits,
        _road_colours,
    ),
}
"""Every kind of style except "none"."""
