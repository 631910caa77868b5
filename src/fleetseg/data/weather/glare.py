"""Glare: a low sun ahead, stray light in the lens and on a dirty windscreen, the rest too dark."""

from __future__ import annotations

import numpy as np

from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.noise import Floats, clouds
from fleetseg.data.weather.planes import column, to_image, to_planes
from fleetseg.data.weather.scene import Scene, enlarged, guess_scene

_SMALL = 4  # subsampling step: stray light varies slowly


def glare(
    image_HWC: Image_HWC, severity: float, rng: np.random.Generator, scene: Scene | None = None
) -> Image_HWC:
    """Add a low sun ahead; severity is from 0 (unchanged) to 1 (blinding)."""
    if severity <= 0:
        return image_HWC.copy()
    scene = scene or guess_scene(image_HWC, rng)
    planes_3HW = to_planes(image_HWC)
    row_px, column_px = _place(scene, rng)
    warmth, dirt, wide = (float(number) for number in rng.random(3))
    colour = column(1.0, 0.93 - 0.15 * warmth, 0.80 - 0.38 * warmth)
    # The camera reduces exposure for the sun, and things facing the camera are backlit.
    planes_3HW *= np.float32(1 - 0.45 * severity)
    planes_3HW *= 1 + column(0.06, 0.0, -0.10) * np.float32(severity * warmth)
    light_HW = _stray_light(scene, (row_px, column_px), severity, (dirt, wide), rng)
    light_HW += _on_the_road(scene, column_px, severity, planes_3HW)
    disc_HW = _disc(scene.size_hw, (row_px, column_px), severity)
    planes_3HW += colour * light_HW
    planes_3HW += (0.55 + 0.45 * colour) * disc_HW
    _ghosts(planes_3HW, (row_px, column_px), severity, colour, rng)
    return to_image(planes_3HW)


def _place(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """Draw the sun's position: low in the sky, or above the image if it shows no sky."""
    height, width = scene.size_hw
    chance, aside = float(rng.random()), float(rng.random())
    low_h1 = np.arange(0, height, _SMALL, dtype=np.float32)[:, None] / np.float32(height)
    sums = np.cumsum(np.maximum(scene.sky_HW[::_SMALL, ::_SMALL] - 0.5, 0) * (0.05 + low_h1))
    if sums[-1] < 1e-3 * sums.size:
        return -0.12 * height, aside * width
    row, col = divmod(int(np.searchsorted(sums, chance * sums[-1])), -(-width // _SMALL))
    return float(_SMALL * row), float(_SMALL * col)


def _away(size_hw: tuple[int, int], place_px: tuple[float, float], step: int) -> Floats:
    """Return squared distance from a place, in image heights, for every `step`-th pixel."""
    height, width = size_hw
    dy = (np.arange(0, height, step, dtype=np.float32) - np.float32(place_px[0])) / height
    dx = (np.arange(0, width, step, dtype=np.float32) - np.float32(place_px[1])) / height
    away: Floats = np.square(dy)[:, None] + np.square(dx)[None, :]
    return away


def _stray_light(
    scene: Scene,
    place_px: tuple[float, float],
    severity: float,
    looks: tuple[float, float],
    rng: np.random.Generator,
) -> Floats:
    """Return light scattered by lens and windscreen: around the sun and, weaker, everywhere."""
    dirt, wide = looks
    away = _away(scene.size_hw, place_px, _SMALL)
    reach = 0.03 + 0.10 * wide
    light = 1.1 * severity / (1 + away / np.float32(reach * reach))
    light += (0.10 + 0.25 * severity) * severity / (1 + away / np.float32(0.6))
    smears = clouds(away.shape, rng, across=0.9)
    light *= 1 + (0.2 + 0.5 * dirt) * smears * np.float32(min(1.0, 0.4 + severity))
    return enlarged(light.astype(np.float32), scene.size_hw)


def _disc(size_hw: tuple[int, int], place_px: tuple[float, float], severity: float) -> Floats:
    """Return the sun itself, which saturates any sensor."""
    away = np.sqrt(_away(size_hw, place_px, 1))
    radius = np.float32(0.018 + 0.028 * severity)
    disc: Floats = np.clip(1.5 - away / radius, 0, 1)
    disc *= np.float32(1.2)
    return disc


def _on_the_road(scene: Scene, column_px: float, severity: float, planes_3HW: Floats) -> Floats:
    """Return the sun's reflection: a stripe towards the camera, brighter where the road is."""
    width = scene.size_hw[1]
    columns = (np.arange(width, dtype=np.float32) - np.float32(column_px)) / np.float32(width)
    spread = 0.05 + 0.10 * scene.ahead_HW
    stripe = 1 / (1 + np.square(columns[None, :] / spread) * 2)
    stripe = stripe * scene.ground_HW * (0.35 + planes_3HW[1])
    result: Floats = stripe * np.float32(0.75 * severity)
    return result


def _ghosts(
    planes_3HW: Floats,
    place_px: tuple[float, float],
    severity: float,
    colour: Floats,
    rng: np.random.Generator,
) -> None:
    """Add lens flare, on the line from the sun through the centre, in place."""
    height, width = planes_3HW.shape[1:]
    for _ in range(int(rng.integers(0, 4))):
        along, size, strength = (float(number) for number in rng.random(3))
        i = int(height / 2 + (place_px[0] - height / 2) * (0.6 - 2 * along))
        j = int(width / 2 + (place_px[1] - width / 2) * (0.6 - 2 * along))
        radius = height * (0.015 + 0.05 * size)
        reach = int(radius) + 2
        rows = slice(min(max(i - reach, 0), height), max(min(i + reach + 1, height), 0))
        cols = slice(min(max(j - reach, 0), width), max(min(j + reach + 1, width), 0))
        dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - i
        dx = np.arange(cols.start, cols.stop, dtype=np.float32)[None, :] - j
        inside = np.clip((radius - np.sqrt(dx * dx + dy * dy)) * 0.4, 0, 1)
        planes_3HW[:, rows, cols] += colour * inside * np.float32(0.16 * strength * severity)
