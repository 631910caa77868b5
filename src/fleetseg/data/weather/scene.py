"""Guess the scene of a street photograph: how far away things are, and where the sky is.

No label is needed. A street is modelled as a floor and two walls that meet in the distance, seen by
a camera with an ordinary field of view: enough for air, light and snow to vary with distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.noise import TILE, Floats, smooth
from fleetseg.data.weather.planes import to_planes

MOUNT_M = 1.4
"""Height of a camera behind a windscreen."""
_LUMA_3 = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_ROWS = 90  # of the downscaled image that guesses are based on


@dataclass(frozen=True)
class Scene:
    """A street in front of a camera; h and w are the size of a downscaled image."""

    size_hw: tuple[int, int]
    horizon_px: float
    centre_px: float  # column where the street ends
    focal_px: float
    wall_m: float  # from the camera to either side of the street
    depth_HW: Floats  # metres; ignores the sky
    sky_HW: Floats  # 0-1
    small_3hw: Floats  # the downscaled image, 0-1
    sky_3: Floats  # colour of the sky, or of the brightest area near the top

    @cached_property
    def ground_HW(self) -> Floats:
        """Confidence that a pixel is ground, 0-1."""
        return enlarged(_ground(self.small_3hw, self.horizon_px / self.size_hw[0]), self.size_hw)

    @property
    def ahead_HW(self) -> Floats:
        """Distance of rows below the horizon, as a share of that of the lower edge: (H, 1)."""
        height = self.size_hw[0]
        rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(self.horizon_px)
        ahead: Floats = np.clip(rows / np.float32(height - self.horizon_px), 0, 1)
        return ahead

    @property
    def aside_HW(self) -> Floats:
        """How far to the right of the camera each pixel's content lies, in metres."""
        columns = np.arange(self.size_hw[1], dtype=np.float32) - np.float32(self.centre_px)
        aside: Floats = self.depth_HW * (columns / np.float32(self.focal_px))
        return aside


def guess_scene(
    image_HWC: Image_HWC, rng: np.random.Generator, depth_HW: Floats | None = None
) -> Scene:
    """Guess the street that an image shows; what an image cannot show is drawn at random.

    Given a depth, in metres and infinite in the sky, only the camera is guessed.
    """
    height, width = image_HWC.shape[:2]
    horizon, centre, wall, far = (float(number) for number in rng.random(4))
    horizon_px, centre_px = height * (0.40 + 0.08 * horizon), width * (0.44 + 0.12 * centre)
    focal_px, wall_m = width * 0.85, 7.0 + 8.0 * wall
    picture = Image.fromarray(image_HWC).reduce(max(1, height // _ROWS))
    small_3hw = to_planes(np.asarray(picture))
    sky_hw, sky_3 = _sky(small_3hw, horizon_px / height)
    if depth_HW is None:
        rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(horizon_px)
        columns = np.abs(np.arange(width, dtype=np.float32) - np.float32(centre_px))
        # Things near the horizon hide what is behind them, so blend floor and air gradually.
        soft = 0.05 * height
        floor = focal_px * MOUNT_M / (soft * np.logaddexp(0, rows / soft) + 0.3)
        walls = focal_px * wall_m / np.maximum(columns, 1e-3)
        depth_HW = np.minimum(np.minimum(floor, walls), 60.0 + 120.0 * far).astype(np.float32)
        sky_HW = _along_edges(sky_hw, small_3hw, image_HWC)
    else:
        sky_HW = np.isinf(depth_HW).astype(np.float32)
        depth_HW = np.where(sky_HW > 0, np.float32(1e4), depth_HW).astype(np.float32)
    return Scene((height, width), horizon_px, centre_px, focal_px, wall_m,
                 depth_HW, sky_HW, small_3hw, sky_3)  # fmt: skip


def luma(planes_3HW: Floats) -> Floats:
    """Return perceived brightness, (H, W)."""
    # Avoid a matrix product, for which numpy would start a thread on every core.
    red, green, blue = _LUMA_3
    weighed: Floats = planes_3HW[0] * red + planes_3HW[1] * green + planes_3HW[2] * blue
    return weighed


def enlarged(small_hw: Floats, size_hw: tuple[int, int]) -> Floats:
    """Resize a map, or a stack of maps, bilinearly."""
    planes_hw = torch.from_numpy(small_hw).view(1, -1, *small_hw.shape[-2:])
    resized = functional.interpolate(planes_hw, size_hw, mode="bilinear")
    result: Floats = resized.numpy().reshape(*small_hw.shape[:-2], *size_hw)
    return result


def blurred(planes_3hw: Floats, size_hw: tuple[int, int], reach: int) -> Floats:
    """Enlarge a small image, blurred over `reach` of its pixels to each side."""
    return enlarged(np.stack([_box(plane, reach) for plane in planes_3hw]), size_hw)


def _sky(small_3hw: Floats, horizon: float) -> tuple[Floats, Floats]:
    """Find the sky in a small image: bright, smooth, uniform in colour, and reaching the top."""
    height = small_3hw.shape[1]
    light_hw = luma(small_3hw)
    edge_hw = _edges(light_hw)
    top = max(1, int(height * horizon * 0.6))
    warm_hw = np.maximum(small_3hw[0] - small_3hw[2] - 0.08, 0)  # true of walls, but of few skies
    even = light_hw[:top] - 4 * edge_hw[:top] - 3 * warm_hw[:top]
    best = even >= np.quantile(even, 0.8)
    sky_3 = np.median(small_3hw[:, :top][:, best], axis=1).astype(np.float32)
    light = float(luma(sky_3[:, None, None])[0, 0])
    tint_3hw = small_3hw - light_hw
    tint_3 = sky_3 - np.float32(light)
    unlike_hw = np.abs(tint_3hw - tint_3[:, None, None]).max(axis=0) * 1.5 + warm_hw
    unlike_hw += np.maximum(light - light_hw - 0.04, 0) + 0.8 * edge_hw
    like_hw = np.clip((0.22 - unlike_hw) * 8, 0, 1)
    # Clouds are darker than the brightest sky: extend the sky downwards until an edge ends it.
    steps_hw = np.abs(np.diff(_box(light_hw, 1), axis=0, prepend=light_hw[:1]))
    passed_hw = np.cumsum(np.maximum(steps_hw - 0.012, 0), axis=0)
    grown_hw = np.clip((0.30 - _box(passed_hw, 2)) * 12, 0, 1) * np.clip(
        (0.6 - unlike_hw) * 6, 0, 1
    )
    like_hw = np.maximum(like_hw, grown_hw * np.clip(like_hw[:3].max(axis=0) * 2 - 0.5, 0, 1))
    reach_hw = np.minimum.accumulate(_box(like_hw, 1), axis=0)
    like_hw *= 0.35 + 0.65 * np.clip(reach_hw * 2, 0, 1)
    rows = np.arange(height, dtype=np.float32)[:, None] / height
    like_hw *= np.clip((horizon + 0.06 - rows) * 20, 0, 1)
    # If nothing near the top is brighter than the street, no sky is visible.
    seen = np.clip((light - float(light_hw[height // 2 :].mean()) - 0.06) * 8, 0, 1)
    return (like_hw * np.float32(seen)).astype(np.float32), sky_3


def _ground(small_3hw: Floats, horizon: float) -> Floats:
    """Find the ground in a small image: smooth, and similar to the area in front of the car."""
    height, width = small_3hw.shape[1:]
    light_hw = luma(small_3hw)
    rows = slice(int(height * 0.66), max(int(height * 0.9), int(height * 0.66) + 1))
    before_3 = np.median(small_3hw[:, rows, width // 4 : width - width // 4], axis=(1, 2))
    light = float(luma(before_3[:, None, None].astype(np.float32))[0, 0])
    tint_3hw = (small_3hw - light_hw) - (before_3 - light)[:, None, None]
    unlike_hw = 1.2 * np.abs(tint_3hw).max(axis=0) + 0.5 * np.abs(light_hw - light)
    unlike_hw = (unlike_hw + _box(_edges(light_hw), 1)) * np.float32(0.65 / (0.25 + light))
    like_hw = np.clip((0.24 - unlike_hw) * 8, 0, 1)
    reach_hw = np.minimum.accumulate(_box(like_hw, 2)[::-1], axis=0)[::-1]
    like_hw *= 0.6 + 0.4 * np.clip(reach_hw * 3, 0, 1)
    below = np.arange(height, dtype=np.float32)[:, None] / height - np.float32(horizon)
    return _box((like_hw * np.clip(below * 25, 0, 1)).astype(np.float32), 1)


def _edges(light_hw: Floats) -> Floats:
    """Return the sum of the differences to the pixels above and to the left."""
    edge_hw = np.zeros_like(light_hw)
    edge_hw[1:] += np.abs(np.diff(light_hw, axis=0))
    edge_hw[:, 1:] += np.abs(np.diff(light_hw, axis=1))
    return edge_hw


def patches(scene: Scene, per_m: float, rng: np.random.Generator) -> Floats:
    """Return cloud-like noise on the ground, for every second pixel; it fades with distance.

    There are `per_m` tiles per metre across the street, half as many along it.
    """
    half = np.s_[::2, ::2]
    texels = np.float32(per_m * TILE)
    left, ahead = (float(place) * TILE for place in rng.random(2))
    z = scene.depth_HW[half]
    u = scene.aside_HW[half] * texels + np.float32(left + 64 * TILE)
    noise_hw = smooth(u, z * texels * np.float32(0.5) + np.float32(ahead))
    noise_hw *= np.clip(18 / z, 0, 1)
    return noise_hw


def _along_edges(small_hw: Floats, small_3hw: Floats, image_HWC: Image_HWC) -> Floats:
    """Enlarge a map so that its borders follow edges of the image (guided filter).

    He, Sun, Tang 2013, with coefficients computed on the small image (He, Sun 2015).
    """
    guide_hw = luma(small_3hw)
    mean_g, mean_m = _box(guide_hw, 2), _box(small_hw, 2)
    slope = _box(guide_hw * small_hw, 2) - mean_g * mean_m
    slope /= _box(guide_hw * guide_hw, 2) - mean_g * mean_g + np.float32(2e-3)
    offset = (mean_m - slope * mean_g).astype(np.float32)
    size_hw = (image_HWC.shape[0], image_HWC.shape[1])
    guide_HW = np.array(Image.fromarray(image_HWC).convert("L"), np.float32)
    guide_HW *= np.float32(1 / 255)
    fitted = enlarged(_box(slope, 2), size_hw) * guide_HW + enlarged(_box(offset, 2), size_hw)
    result: Floats = np.clip(fitted * 1.3 - 0.15, 0, 1)
    return result


def _box(plane_hw: Floats, reach: int) -> Floats:
    """Return the mean over a square of `reach` pixels to each side; the border is repeated."""
    side = 2 * reach + 1
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach + 1, reach)
        total = np.cumsum(np.pad(plane_hw, pad, mode="edge"), axis=axis, dtype=np.float64)
        ends = np.take(total, np.arange(side, total.shape[axis]), axis=axis)
        starts = np.take(total, np.arange(total.shape[axis] - side), axis=axis)
        plane_hw = ((ends - starts) / side).astype(np.float32)
    return plane_hw
