"""Convert images to three planes of floats, on which numpy is fastest, and back."""

from __future__ import annotations

import numpy as np

from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.noise import Floats, grain


def to_planes(image_HWC: Image_HWC) -> Floats:
    """Return (3, H, W), 0-1."""
    planes_3HW = np.empty((3, *image_HWC.shape[:2]), np.float32)
    planes_3HW[:] = image_HWC.transpose(2, 0, 1)
    planes_3HW *= np.float32(1 / 255)
    return planes_3HW


def to_image(planes_3HW: Floats) -> Image_HWC:
    """Return uint8 (H, W, 3), clipped and rounded; the planes are overwritten."""
    planes_3HW *= np.float32(255)
    planes_3HW += np.float32(0.5)
    np.clip(planes_3HW, 0, 255, out=planes_3HW)
    return np.ascontiguousarray(planes_3HW.astype(np.uint8).transpose(1, 2, 0))


def column(*colour: float) -> Floats:
    """Return a colour that broadcasts over planes, (3, 1, 1)."""
    return np.array(colour, dtype=np.float32)[:, None, None]


def desaturate(planes_3HW: Floats, grey_HW: Floats, share: float) -> None:
    """Move colours towards grey, in place."""
    planes_3HW *= np.float32(1 - share)
    planes_3HW += grey_HW * np.float32(share)


def add_noise(planes_3HW: Floats, sigma: float, rng: np.random.Generator) -> None:
    """Add sensor noise, mostly the same in all colours, in place."""
    size_hw = (planes_3HW.shape[1], planes_3HW.shape[2])
    common_HW = grain(size_hw, rng) * np.float32(0.8 * sigma)
    for plane_HW in planes_3HW:
        plane_HW += common_HW
        plane_HW += grain(size_hw, rng) * np.float32(0.6 * sigma)
