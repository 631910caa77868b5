"""Rain: dull sky, thick air, reflecting wet ground, drops in the air and on the windscreen."""

from __future__ import annotations

import numpy as np

from fleetseg.data.sample import Image_HWC
from fleetseg.data.weather.fog import airlight, clearness
from fleetseg.data.weather.noise import Floats
from fleetseg.data.weather.physics import streak_mask, veil
from fleetseg.data.weather.planes import add_noise, column, desaturate, to_image, to_planes
from fleetseg.data.weather.scene import Scene, blurred, enlarged, guess_scene, luma, patches


def rain(
    image_HWC: Image_HWC, severity: float, rng: np.random.Generator, scene: Scene | None = None
) -> Image_HWC:
    """Add rain to an image; severity is from 0 (unchanged) to 1 (a cloudburst)."""
    if severity <= 0:
        return image_HWC.copy()
    scene = scene or guess_scene(image_HWC, rng)
    dull, wet, tone, warmth, pane = (float(number) for number in rng.random(5))
    planes_3HW = to_planes(image_HWC)
    overcast(planes_3HW, scene, 0.75 * severity)
    planes_3HW *= column(0.97, 0.99, 1.01) * np.float32(1 - (0.22 + 0.25 * dull) * severity)
    _mirror(planes_3HW, scene, (0.35 + 0.4 * wet) * severity, rng)
    air_311 = airlight(scene, tone, warmth) * np.float32(0.93 - 0.22 * severity)
    clear_HW = clearness(scene, 0.022 * severity**1.3, 0.3, rng)
    veil(planes_3HW, clear_HW, air_311)
    _streaks(planes_3HW, severity, float(air_311.mean()), rng)
    if pane < 0.6:
        _drops_on_the_pane(planes_3HW, scene, severity, rng)
    add_noise(planes_3HW, 0.008 * severity, rng)
    return to_image(planes_3HW)


def overcast(planes_3HW: Floats, scene: Scene, share: float) -> None:
    """Remove the sun's effects, in place: shadows, highlights, strong colours, a bright sky."""
    grey_HW = luma(planes_3HW)
    desaturate(planes_3HW, grey_HW, 0.45 * share)
    lift_HW = 0.22 * share * np.clip(0.35 - grey_HW, 0, 1)  # the sky brightens shadows
    lift_HW -= 0.45 * share * np.clip(grey_HW - 0.6, 0, 1)
    planes_3HW += lift_HW
    cover_HW = scene.sky_HW * np.float32(0.8 * share)
    day = float(luma(scene.sky_3[:, None, None])[0, 0])
    veil(planes_3HW, 1 - cover_HW, column(0.72, 0.74, 0.77) * np.float32(0.3 + 0.65 * day))


def _mirror(planes_3HW: Floats, scene: Scene, share: float, rng: np.random.Generator) -> None:
    """Mirror what stands above the horizon in the ground, smeared vertically, in place."""
    height, width = scene.size_hw
    foot = min(int(scene.horizon_px * 1.06) + 1, height - 1)
    count = height - foot
    wet_GW = (0.12 + 0.88 * scene.ground_HW[foot:]) * np.float32(share)
    wet_GW *= np.clip(
        0.8 + 0.8 * enlarged(patches(scene, 0.07, rng), scene.size_hw)[foot:], 0.3, 1.2
    )
    ground_3GW = planes_3HW[:, foot:]
    above = scene.small_3hw[:, : max(1, int(scene.small_3hw.shape[1] * foot / height))]
    smeared = np.stack([_smeared(plane[::-1]) for plane in above])
    image_3GW = enlarged(smeared, (count, width))
    image_3GW *= np.float32(0.72)
    ground_3GW *= np.float32(1 - 0.35 * share)  # wet ground is darker
    veil(ground_3GW, 1 - wet_GW, image_3GW)


def _smeared(plane_hw: Floats) -> Floats:
    """Average over a range of rows, as in reflections from a rough wet surface."""
    reach = max(1, plane_hw.shape[0] // 6)
    padded = np.pad(plane_hw, ((reach, reach + 1), (0, 0)), mode="edge")
    total = np.cumsum(padded, axis=0, dtype=np.float64)
    side = 2 * reach + 1
    means: Floats = ((total[side:] - total[:-side]) / side).astype(np.float32)
    return np.ascontiguousarray(means)


def _streaks(planes_3HW: Floats, severity: float, light: float, rng: np.random.Generator) -> None:
    """Add far drops as many short faint lines, near drops as few long blurred ones, in place."""
    height, width = planes_3HW.shape[1:]
    scale, area = height / 360, height * width / 10_000
    lean = float(rng.normal(0, 0.12))
    far_HW = streak_mask(
        (height, width), int(area * 55 * severity), rng,
        length_px=(3 * scale, 7 * scale), gain=(0.04, 0.10), slant=(lean, 0.05),
    )  # fmt: skip
    near_HW = streak_mask(
        (height, width), int(area * 7 * severity), rng,
        length_px=(12 * scale, 26 * scale), gain=(0.10, 0.22), slant=(lean, 0.08),
    )  # fmt: skip
    wide_HW = near_HW.copy()
    wide_HW[:, 1:] += 0.6 * near_HW[:, :-1]
    wide_HW[:, :-1] += 0.4 * near_HW[:, 1:]
    clear_HW = 1 - np.minimum(far_HW + wide_HW * np.float32(0.75), 0.6)
    veil(planes_3HW, clear_HW, np.float32(min(0.95, light + 0.22)) + np.zeros(1, np.float32))


def _drops_on_the_pane(
    planes_3HW: Floats, scene: Scene, severity: float, rng: np.random.Generator
) -> None:
    """Add drops on the windscreen, in place: out of focus, each shows the street upside down."""
    height, width = scene.size_hw
    soft_3HW = blurred(scene.small_3hw, scene.size_hw, 2) * np.float32(0.85)
    for _ in range(int(4 + 26 * severity * float(rng.random()))):
        row, col, size = (float(number) for number in rng.random(3))
        radius = height * (0.006 + 0.022 * size * size)
        reach = int(radius) + 2
        i, j = int(row * height), int(col * width)
        rows = slice(max(i - reach, 0), min(i + reach + 1, height))
        cols = slice(max(j - reach, 0), min(j + reach + 1, width))
        dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - i
        dx = np.arange(cols.start, cols.stop, dtype=np.float32)[None, :] - j
        away = np.sqrt(dx * dx * 1.2 + dy * dy * 0.8) / np.float32(radius)
        clear = (1 - 0.6 * np.clip((1.15 - away) * 2.5, 0, 1)).astype(np.float32)
        shown = soft_3HW[:, np.clip(height - 1 - i - (dy[:, 0] * 3).astype(int), 0, height - 1)]
        shown = shown[:, :, cols] + np.clip(-dy / radius, -1, 1) * np.float32(0.07)
        veil(planes_3HW[:, rows, cols], clear, shown)
