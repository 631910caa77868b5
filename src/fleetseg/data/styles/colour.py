"""Convert whole images from sRGB to CIE Lab (D65, 2 degrees) and back, by tables if possible."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Image_HWC

Floats = npt.NDArray[np.float32]

# IEC 61966-2-1: linear RGB to XYZ, and XYZ of white under D65.
_XYZ_OF_RGB = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
_WHITE_3 = np.array([0.95047, 1.0, 1.08883])
_TO_WHITE = _XYZ_OF_RGB / _WHITE_3[:, None]
_FROM_WHITE = np.linalg.inv(_TO_WHITE)
_KNEE = 6 / 29  # below its cube, Lab's cube root is replaced by a line


def lab_of(image_HWC: Image_HWC) -> Floats:
    """Return L in 0 to 100, a and b of an image: float32 of shape (3, H, W)."""
    linear_CHW = [_linear_levels().take(image_HWC[:, :, c]) for c in range(3)]
    x, y, z = (_root(_mixed(row_3, linear_CHW)) for row_3 in _TO_WHITE)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def image_of(lab_CHW: Floats) -> Image_HWC:
    """Return the image of L, a and b: clipped to the sRGB gamut, rounded, uint8 HWC."""
    light, a, b = lab_CHW
    y = (light + 16) / 116
    white_CHW = [_unroot(root) for root in (y + a / 500, y, y - b / 200)]
    # The tone curve is steepest in the dark: a step of 1/65535 is 0.05 levels there.
    steps = (_mixed(row_3 * 65535, white_CHW) for row_3 in _FROM_WHITE)
    levels = [_levels().take(np.rint(np.clip(x, 0, 65535)).astype(np.uint16)) for x in steps]
    return np.stack(levels, axis=2)


def _mixed(row_3: npt.NDArray[np.float64], planes_CHW: list[Floats]) -> Floats:
    # Avoid a matrix product: numpy would start a thread per core, and the bits depend on those.
    first, second, third = (np.float32(w) for w in row_3)
    mixed: Floats = first * planes_CHW[0] + second * planes_CHW[1] + third * planes_CHW[2]
    return mixed


def _root(ratio_HW: Floats) -> Floats:
    line_HW = ratio_HW / np.float32(3 * _KNEE**2) + np.float32(4 / 29)
    return np.where(ratio_HW > _KNEE**3, np.cbrt(ratio_HW), line_HW)


def _unroot(root_HW: Floats) -> Floats:
    line_HW = np.float32(3 * _KNEE**2) * (root_HW - np.float32(4 / 29))
    return np.where(root_HW > _KNEE, root_HW * root_HW * root_HW, line_HW)


@cache
def _linear_levels() -> Floats:
    """Linear light, 0 to 1, for each of the 256 levels."""
    level = np.arange(256) / 255
    linear = np.where(level > 0.04045, ((level + 0.055) / 1.055) ** 2.4, level / 12.92)
    return linear.astype(np.float32)


@cache
def _levels() -> npt.NDArray[np.uint8]:
    """The level for each of 65536 steps of linear light."""
    linear = np.arange(65536) / 65535
    level = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    levels: npt.NDArray[np.uint8] = np.rint(255 * level).astype(np.uint8)
    return levels
