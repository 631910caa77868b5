"""Fog: distant things fade into airlight (Koschmieder's law) and lose their edges."""

from __future__ import annotations

import numpy as np

from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.noise import Floats, clouds
from fleetseg.data.weather.physics import veil
from fleetseg.data.weather.planes import column, desaturate, to_image, to_planes
from fleetseg.data.weather.scene import Scene, blurred, enlarged, guess_scene, luma

_THICKEST = 0.075
"""Attenuation per metre at severity 1: visibility 50 m (3.9 divided by it)."""


def fog(
    image_HWC: Image_HWC, severity: float, rng: np.random.Generator, scene: Scene | None = None
) -> Image_HWC:
    """Add fog to an image; severity is from 0 (unchanged) to 1 (visibility 50 m)."""
    if severity <= 0:
        return image_HWC.copy()
    scene = scene or guess_scene(image_HWC, rng)
    tone, warmth, patchy = (float(number) for number in rng.random(3))
    clear_HW = clearness(scene, fog_per_m(severity), 0.45 * patchy, rng)
    planes_3HW = to_planes(image_HWC)
    desaturate(planes_3HW, luma(planes_3HW), 0.35 * severity)
    soft_3HW = blurred(scene.small_3hw, scene.size_hw, 1)
    # Light scattered once more on its way blurs distant things.
    veil(planes_3HW, np.minimum(0.35 + clear_HW, 1), soft_3HW)
    veil(planes_3HW, clear_HW, airlight(scene, tone, warmth))
    return to_image(planes_3HW)


def fog_per_m(severity: float) -> float:
    """Return attenuation per metre; it grows faster than severity, so that 0.5 is a light fog."""
    return float(_THICKEST * severity**1.6)


def airlight(scene: Scene, tone: float, warmth: float) -> Floats:
    """Return the colour of the air, (3, 1, 1): grey, as bright as the day, close to the sky's."""
    day = float(np.clip(luma(scene.sky_3[:, None, None])[0, 0], 0.25, 1.0))
    grey = (0.25 + 0.54 * day) * (0.88 + 0.24 * tone)
    tint = scene.sky_3[:, None, None] - np.float32(luma(scene.sky_3[:, None, None])[0, 0])
    lean = 0.02 * (2 * warmth - 1)
    light: Floats = np.clip(grey + 0.18 * tint + column(lean, 0, -lean), 0, 1).astype(np.float32)
    return light


def clearness(scene: Scene, per_m: float, patchy: float, rng: np.random.Generator) -> Floats:
    """Return the share of light that passes through the air to each pixel; none from the sky.

    The air is thicker in places by up to the share `patchy`.
    """
    height, width = scene.size_hw
    small_hw = (max(1, height // 4), max(1, width // 4))
    thick_HW = 1 + patchy * enlarged(clouds(small_hw, rng, across=0.7), scene.size_hw)
    clear_HW = np.exp(scene.depth_HW * thick_HW * np.float32(-per_m))
    clear_HW *= 1 - scene.sky_HW * np.float32(1 - np.exp(-per_m * 1000.0))
    return clear_HW
