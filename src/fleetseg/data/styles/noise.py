"""The Gaussian mechanism: noise on a vehicle's style that hides each single image.

A vehicle's style is the mean over n images, each clipped to the range typical of road images.
Replacing one image moves the mean by at most d / n, where d is the distance from the lowest to the
highest corner of that range. Noise of standard deviation z d / n on every number is (epsilon,
delta)-private for each image, where delta = Phi(1/(2z) - epsilon z) - e^epsilon Phi(-1/(2z) -
epsilon z): Balle, Wang, ICML 2018, arXiv 1805.06530. It hides a single image, but not what all
images of a vehicle have in common.
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
    """Return the standard deviation of the noise on each number of a vehicle's style.

    Of two mirrored numbers, only one counts: the other is its copy, including the noise.
    """
    kind = KINDS[config.kind]
    low, high = kind.typical(shape)
    once = _once(shape) if kind.mirrored else np.ones(shape, bool)
    span = math.sqrt(float(np.square(high - low, dtype=np.float64)[once].sum()))
    return config.noise * span / min(num_images, config.images)


def noised(styles: Floats, config: StyleConfig, num_images: int) -> Floats:
    """Add noise to a vehicle's single style, and clip the sum to the range of possible styles.

    The noise is seeded by the operating system, because a known seed would reveal it.
    """
    kind, shape = KINDS[config.kind], styles.shape[1:]
    key = int.from_bytes(os.urandom(16), "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    noise = generator.normal(0.0, noise_std(config, shape, num_images), shape)
    if kind.mirrored:
        noise = np.where(_once(shape), noise, noise[:, ::-1, ::-1])
    return np.clip(styles + noise, *kind.limits(shape)).astype(np.float32)


def _once(shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Mark the middle of each window and everything after it, which mirrors what comes before."""
    window = math.prod(shape[1:])
    return np.broadcast_to((np.arange(window) >= window // 2).reshape(shape[1:]), shape)
