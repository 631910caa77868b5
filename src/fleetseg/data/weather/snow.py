"""Snow: white air, flakes, and ground and leaves that whiten with distance and beside tracks."""

from __future__ import annotations

import numpy as np

from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.fog import clearness
from fleetseg.data.weather.noise import Floats
from fleetseg.data.weather.physics import veil
from fleetseg.data.weather.planes import add_noise, column, to_image, to_planes
from fleetseg.data.weather.rain import overcast
from fleetseg.data.weather.scene import Scene, enlarged, guess_scene, luma, patches


def snow(
    image_HWC: Image_HWC, severity: float, rng: np.random.Generator, scene: Scene | None = None
) -> Image_HWC:
    """Add snow to an image; severity is from 0 (unchanged) to 1 (a snowstorm)."""
    if severity <= 0:
        return image_HWC.copy()
    scene = scene or guess_scene(image_HWC, rng)
    lying, tone, falling = (float(number) for number in rng.random(3))
    planes_3HW = to_planes(image_HWC)
    overcast(planes_3HW, scene, severity)
    day = 0.45 + 0.5 * float(np.clip(luma(scene.sky_3[:, None, None])[0, 0], 0, 1))
    white = column(0.93, 0.96, 1.0) * np.float32(day)
    cover_HW = _on_the_ground(scene, severity * (0.45 + 0.75 * lying), rng)
    cover_HW = np.maximum(cover_HW, _on_things(planes_3HW, scene, severity * (0.3 + 0.6 * lying)))
    shade_HW = 0.86 + 0.25 * luma(planes_3HW)  # shadows stay slightly darker
    veil(planes_3HW, 1 - cover_HW, white * shade_HW)
    air = white * np.float32(0.86 + 0.08 * tone)
    veil(planes_3HW, clearness(scene, 0.028 * severity**1.4, 0.4, rng), air)
    flakes_HW = _flakes(scene.size_hw, severity * (0.35 + 0.65 * falling), rng)
    veil(planes_3HW, 1 - flakes_HW, np.minimum(white * np.float32(1.08), 1))
    add_noise(planes_3HW, 0.006 * severity, rng)
    return to_image(planes_3HW)


def _on_the_ground(scene: Scene, share: float, rng: np.random.Generator) -> Floats:
    """Return the ground's whiteness, 0-1: more beside the street than on it, least in tracks."""
    track, lane, half_m = (float(number) for number in rng.random(3))
    half = np.s_[::2, ::2]  # it varies slowly
    aside = np.abs(scene.aside_HW[half] - np.float32(2 * lane - 1))
    wheel = np.minimum(np.abs(aside - 0.85), np.abs(aside - 4.2) + 0.15)
    rutted = np.clip(1.1 - wheel * 1.6, 0, 1) * np.float32(0.45 + 0.5 * track)
    beside = np.clip((aside - (2.5 + 3 * half_m)) * 0.6, 0, 1)
    patchy = patches(scene, 0.09, rng)
    amount = share * 1.15 + 0.55 * beside * share + 0.5 * patchy - rutted - 0.12
    cover = np.clip(amount * 1.6, 0, 0.95) * np.clip(scene.ahead_HW[::2] * 8, 0, 1)
    return enlarged(cover, scene.size_hw) * (0.22 + 0.78 * scene.ground_HW)


def _on_things(planes_3HW: Floats, scene: Scene, share: float) -> Floats:
    """Return the whiteness of leaves, grass and upper edges, 0-1."""
    leaves_HW = planes_3HW[1] - np.maximum(planes_3HW[0], planes_3HW[2]) + 0.02
    grey_HW = luma(planes_3HW)
    top_HW = np.zeros_like(grey_HW)  # upper edges of things darker than their background
    top_HW[2:] = np.clip((grey_HW[:-2] - grey_HW[2:] - 0.10) * 4, 0, 1)
    speckle_HW = 0.8 + 0.3 * np.clip(grey_HW * 3 - 0.3, -1, 1)
    cover_HW = np.maximum(np.clip(leaves_HW * 12, 0, 1) * speckle_HW, 0.8 * top_HW)
    cover: Floats = np.clip(cover_HW * np.float32(share), 0, 0.9) * (1 - scene.sky_HW)
    return cover


def _flakes(size_hw: tuple[int, int], share: float, rng: np.random.Generator) -> Floats:
    """Draw flakes, 0 where there is none: many small ones, some larger, few near and blurred."""
    height, width = size_hw
    scale, area = height / 360, height * width / 10_000
    lean = float(rng.normal(0, 0.5))
    total_HW = np.zeros(size_hw, np.float32)
    for radius, number, strength in (
        (0.7, 60, 0.55),
        (1.3, 22, 0.6),
        (2.4, 5, 0.5),
        (5.5, 1.0, 0.32),
    ):
        radius_px, count = max(radius * scale, 0.6), int(number * area * share)
        reach = int(radius_px * 1.8) + 1
        dy, dx = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
        along = dx - lean * dy * 0.5  # motion blur during the exposure
        shape = np.clip(1.25 - np.sqrt(along * along + dy * dy * 0.55) / radius_px, 0, 1)
        used = shape > 0
        rows = (rng.random(count) * height).astype(np.int32)[:, None] + dy[used]
        columns = (rng.random(count) * width).astype(np.int32)[:, None] + dx[used]
        depth = strength * (0.4 + 0.6 * rng.random(count).astype(np.float32))[:, None]
        layer_HW = np.zeros(size_hw, np.float32)
        layer_HW[rows % height, columns % width] = depth * np.minimum(shape[used] * 1.4, 1)
        np.maximum(total_HW, layer_HW, out=total_HW)
    return total_HW
