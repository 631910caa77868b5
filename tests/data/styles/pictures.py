"""Pictures that are no noise: slow changes of light with detail on them, as on roads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def picture(seed: int, height: int = 36, width: int = 48, low: int = 60, high: int = 190) -> Image:
    """Light that grows from one corner to another, blocks of colour, a little noise."""
    generator = np.random.Generator(np.random.Philox(seed))
    ramp_HW = np.add.outer(np.linspace(0, 1, height), np.linspace(0, 1, width)) / 2
    blocks_HW3 = generator.random((height // 4 + 1, width // 4 + 1, 3)).repeat(4, 0).repeat(4, 1)
    mixed = 0.5 * ramp_HW[:, :, None] + 0.4 * blocks_HW3[:height, :width]
    mixed = mixed + 0.1 * generator.random((height, width, 3))
    return np.rint(low + (high - low) * mixed).astype(np.uint8)
