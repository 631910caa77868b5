"""Noise on a vehicle's style, so that no image of its shows in it: the Gaussian mechanism.

A vehicle's style is the mean over n images, each cut to what images of roads have. One image in the
place of another moves it by at most d / n, d the distance from the lowest to the highest corner of
that range. Noise of standard deviation z d / n on every number is (epsilon, delta) private for each
image, where delta = Phi(1/(2z) - epsilon z) - e^epsilon Phi(-1/(2z) - epsilon z): Balle, Wang, ICML
2018, arXiv 1805.06530. It hides an image, and not what is common to all of a vehicle's images.
"""

from __future__ import annotations

import math
import os

import numpy as np
import numpy.typing as npt

from fleetseg.config import StyleConfig
from fleetseg.data.styles.style import KINDS

Floats = npt.NDArray[np.float32]


def noise_std(config: StyleConfig, shape: tuple[int, ...], num_images: int) -> float:
    """Standard deviation of the noise on each number of a vehicle's style, in its units.

    Of what is there twice, one counts: the other is its copy, noise included.
    """
    kind = KINDS[config.kind]
    low, high = kind.typical(shape)
    once = _once(shape) if kind.mirrored else np.ones(shape, bool)
    span = math.sqrt(float(np.square(high - low, dtype=np.float64)[once].sum()))
    return config.noise * span / min(num_images, config.images)


def noised(styles: Floats, config: StyleConfig, num_images: int) -> Floats:
    """Add noise to a vehicle's one style, and cut the sum to what a style can be.

    The noise comes from the operating system: a seed that others know would give it away.
    """
    kind, shape = KINDS[config.kind], styles.shape[1:]
    key = int.from_bytes(os.urandom(16), "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    noise = generator.normal(0.0, noise_std(config, shape, num_images), shape)
    if kind.mirrored:
        noise = np.where(_once(shape), noise, noise[:, ::-1, ::-1])
    return np.clip(styles + noise, *kind.limits(shape)).astype(np.float32)


def _once(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Mark the middle of each window and what comes after it: its mirror image comes before."""
    window = math.prod(shape[1:])
    return np.broadcast_to((np.arange(window) >= window // 2).reshape(shape[1:]), shape)
