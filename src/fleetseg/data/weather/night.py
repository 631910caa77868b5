"""Night: dim bluish light, pools of lamp and headlight, bright lights kept, sensor noise."""

from __future__ import annotations

import math

import numpy as np

from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.noise import Floats
from fleetseg.data.weather.physics import Point, headlights, lamplight, veil
from fleetseg.data.weather.planes import add_noise, column, to_image, to_planes
from fleetseg.data.weather.scene import MOUNT_M, Scene, blurred, enlarged, guess_scene, luma

_SMALL = 4  # light falls off gradually: compute it for every fourth pixel
_LAMPS = {"sodium": (1.0, 0.66, 0.30), "warm": (1.0, 0.80, 0.55), "led": (0.92, 0.96, 1.0)}


def night(
    image_HWC: Image_HWC, severity: float, rng: np.random.Generator, scene: Scene | None = None
) -> Image_HWC:
    """Turn an image into night; severity is from 0 (unchanged) to 1 (hardly a lamp)."""
    if severity <= 0:
        return image_HWC.copy()
    scene = scene or guess_scene(image_HWC, rng)
    planes_3HW = to_planes(image_HWC)
    lights_HW = _lights(planes_3HW, scene)
    kept_3HW = planes_3HW * lights_HW
    np.multiply(planes_3HW, planes_3HW, out=planes_3HW)  # until the square root, light is additive
    _without_sun(planes_3HW, scene, severity)
    planes_3HW *= np.float32(np.clip(0.12 / (float(planes_3HW.mean()) + 1e-6), 0.8, 3.0))
    sky_3HW = _night_sky(scene, severity, rng)
    colour = column(*_LAMPS[("sodium", "warm", "led")[int(rng.integers(3))]])
    lamps = _lamps(scene, severity, rng)
    planes_3HW *= _light(scene, severity, lamps, colour, rng)
    veil(planes_3HW, np.clip(1.1 - 1.8 * scene.sky_HW, 0, 1), sky_3HW)
    _halos(planes_3HW, scene, lamps, colour)
    planes_3HW += np.square(kept_3HW) * np.float32(0.9)
    planes_3HW *= np.float32(0.8 + 1.2 * float(rng.random()) ** 2)  # exposure time
    np.sqrt(np.maximum(planes_3HW, 0, out=planes_3HW), out=planes_3HW)
    add_noise(planes_3HW, 0.008 + 0.028 * severity * float(rng.random()), rng)
    return to_image(planes_3HW)


def _lights(planes_3HW: Floats, scene: Scene) -> Floats:
    """Find light sources, 0-1: small, bright and coloured, brighter than their surroundings."""
    around_HW = blurred(scene.small_3hw.max(axis=0)[None], scene.size_hw, 3)[0]
    most_HW = planes_3HW.max(axis=0)
    colour_HW = most_HW - planes_3HW.min(axis=0)
    stands_out_HW = (most_HW - around_HW) * 2.5 + colour_HW - 0.75
    red_HW = planes_3HW[0] - np.maximum(planes_3HW[1], planes_3HW[2])  # rear and traffic lights
    # A bright grey spot above the horizon is more often sky between leaves than a lamp.
    stands_out_HW -= np.float32(1.2) * (scene.ahead_HW <= 0) * np.maximum(0.35 - colour_HW, 0)
    shines_HW = np.maximum(stands_out_HW * 2, (red_HW - 0.38) * 3) * np.clip(most_HW * 4 - 2, 0, 1)
    lights: Floats = np.clip(shines_HW, 0, 1) * np.clip(1 - 4 * scene.sky_HW, 0, 1)
    return lights


def _without_sun(planes_3HW: Floats, scene: Scene, severity: float) -> None:
    """Reduce daytime contrast and colour, in place: eyes and sensors see little of it at night."""
    grey_HW = luma(planes_3HW)
    planes_3HW *= np.float32(1 - 0.4 * severity)
    planes_3HW += grey_HW * np.float32(0.4 * severity)
    # Sunlit walls are not lit now, least of all where no headlight reaches.
    brake_H1 = (0.8 + 3.0 * (scene.ahead_HW <= 0)) * np.float32(severity)
    planes_3HW /= 1 + brake_H1 * grey_HW


def _night_sky(scene: Scene, severity: float, rng: np.random.Generator) -> Floats:
    """Colour the sky: dark above, lit by the town near the horizon."""
    height = scene.size_hw[0]
    glow, haze, dusk = (float(number) for number in rng.random(3))
    low = np.clip(np.arange(height, dtype=np.float32) / np.float32(scene.horizon_px), 0, 1)
    low_H1 = (low**3)[:, None]
    top = column(0.004, 0.005, 0.011) * np.float32(1 + 9 * (1 - severity) * dusk)
    town = column(0.042, 0.034, 0.030) * np.float32(0.3 + 1.5 * glow * haze + 2 * (1 - severity))
    sky: Floats = top + town * low_H1
    return sky


def _lamps(scene: Scene, severity: float, rng: np.random.Generator) -> list[Point]:
    """Place lamps along both sides of the street; some streets have none."""
    if float(rng.random()) < 0.15 + 0.3 * max(0.0, severity - 0.6):
        return []
    step_m, start_m, height_m = 18 + 14 * rng.random(), 7 + 12 * rng.random(), 5 + 3 * rng.random()
    sides = [(-1.0,), (1.0,), (-1.0, 1.0)][int(rng.integers(3))]
    aside_m = min(scene.wall_m - 1.5, 4 + 4 * rng.random())
    return [
        (side * aside_m, float(height_m), float(start_m + step_m * (number + 0.5 * (side > 0))))
        for number in range(4)
        for side in sides
    ]


def _light(
    scene: Scene, severity: float, lamps: list[Point], colour: Floats, rng: np.random.Generator
) -> Floats:
    """Return light on every pixel, (3, H, W), from the sky, street lamps and ego headlights."""
    depth_hw = np.ascontiguousarray(scene.depth_HW[::_SMALL, ::_SMALL])
    rows = np.arange(0, scene.size_hw[0], _SMALL, dtype=np.float32)[:, None]
    columns = np.arange(0, scene.size_hw[1], _SMALL, dtype=np.float32)[None, :]
    scale = depth_hw / np.float32(scene.focal_px)
    x = (columns - np.float32(scene.centre_px)) * scale
    y = np.float32(MOUNT_M) - (rows - np.float32(scene.horizon_px)) * scale
    z = np.minimum(depth_hw, 200)
    ambient, beam, lit = (float(number) for number in rng.random(3))
    dark = 0.02 + 0.03 * ambient + 0.28 * (1 - severity) ** 1.5
    base = column(0.72, 0.86, 1.25) * np.float32(dark)
    lamp_hw = lamplight(x, y, z, lamps) * np.float32(0.6 + 0.9 * lit)
    beam_hw = headlights(x, y, z) * np.float32(0.30 + 0.35 * beam)
    head = column(1.0, 0.98, 0.90)
    light_3hw = base + colour * lamp_hw + head * beam_hw
    return enlarged(light_3hw.astype(np.float32), scene.size_hw)


def _halos(planes_3HW: Floats, scene: Scene, lamps: list[Point], colour: Floats) -> None:
    """Add the lamps themselves and the light around them, in place."""
    height, width = scene.size_hw
    for x_m, y_m, z_m in lamps:
        i = int(scene.horizon_px - (y_m - MOUNT_M) * scene.focal_px / z_m)
        j = int(scene.centre_px + x_m * scene.focal_px / z_m)
        if not (0 <= i < height and 0 <= j < width):
            continue
        size = min(max(scene.focal_px * 0.14 / z_m, 1.0), 0.02 * width)
        reach = int(10 * size) + 2
        rows = slice(max(i - reach, 0), min(i + reach + 1, height))
        cols = slice(max(j - reach, 0), min(j + reach + 1, width))
        dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - i
        dx = np.arange(cols.start, cols.stop, dtype=np.float32)[None, :] - j
        near = 1 / (1 + (dx * dx + dy * dy) / np.float32(size * size))
        fall = np.maximum(near - 0.01, 0) * math.exp(-0.008 * z_m)
        planes_3HW[:, rows, cols] += np.square(fall) * (0.6 + colour) + colour * fall * 0.22
