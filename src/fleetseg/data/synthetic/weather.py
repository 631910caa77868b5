"""Time of day and weather: their light on a street, and their effects in front of the lens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.data.synthetic.canvas import Canvas, Floats, Rgb, View
from fleetseg.data.weather.noise import smooth, white
from fleetseg.data.weather.physics import headlights, lamplight, streak_mask


@dataclass(frozen=True, slots=True)
class Weather:
    """One condition; colours are of light, strengths 0-1."""

    sky_top: Rgb
    sky_low: Rgb
    cloud: Rgb
    cover: float  # share of the sky covered by clouds
    light: Rgb  # on everything not lit by lamps
    sun: float  # contrast between faces towards and away from the sun, and depth of shadows
    sun_reach: float  # length of shadows divided by object height; 0 = none
    fog_per_m: float
    fog: Rgb
    night: float  # share of lamps and windows that are lit
    wet: float  # strength of reflections on the road
    streaks: int  # rain drops in the air per 100x100 pixels
    noise: float  # standard deviation of the sensor's noise, of 255


CONDITIONS: dict[str, Weather] = {
    "day": Weather((0.36, 0.56, 0.84), (0.80, 0.87, 0.94), (0.96, 0.96, 0.97), 0.35,
                   (1.04, 1.02, 0.98), 0.34, 0.8, 0.0010, (0.80, 0.86, 0.93), 0.0, 0.0, 0, 2.0),
    "dusk": Weather((0.26, 0.28, 0.46), (0.94, 0.62, 0.42), (0.72, 0.48, 0.48), 0.45,
                    (0.64, 0.52, 0.50), 0.26, 0.0, 0.0028, (0.66, 0.48, 0.44), 0.5, 0.0, 0, 3.5),
    "night": Weather((0.015, 0.02, 0.05), (0.12, 0.10, 0.10), (0.07, 0.07, 0.09), 0.3,
                     (0.13, 0.14, 0.19), 0.05, 0.0, 0.0020, (0.07, 0.07, 0.09), 1.0, 0.1, 0, 5.0),
    "rain": Weather((0.52, 0.55, 0.59), (0.66, 0.68, 0.70), (0.44, 0.46, 0.50), 0.8,
                    (0.66, 0.69, 0.73), 0.06, 0.0, 0.0075, (0.62, 0.64, 0.67), 0.25, 0.55, 26, 3.0),
    "fog": Weather((0.76, 0.78, 0.79), (0.80, 0.81, 0.82), (0.80, 0.81, 0.82), 0.0,
                   (0.84, 0.85, 0.86), 0.03, 0.0, 0.0300, (0.79, 0.80, 0.81), 0.15, 0.0, 0, 2.5),
}  # fmt: skip


def sky(view: View, weather: Weather, bottom: int, drift: float) -> Floats:
    """Colour the rows above `bottom`: a gradient and clouds in perspective, (bottom, W, 3)."""
    width = view.size_hw[1]
    above = np.maximum(np.float32(view.horizon_px) - np.arange(bottom, dtype=np.float32), 0.0)
    rise = above / np.float32(view.focal_px)
    share = np.minimum(rise * 2.2, 1.0)[:, None]
    low, top = (np.array(c, dtype=np.float32) for c in (weather.sky_low, weather.sky_top))
    ramp_H13 = (low + (top - low) * share)[:, None, :]
    if not weather.cover:
        return np.repeat(ramp_H13, width, axis=1)
    far = (60.0 / (rise + 0.12))[:, None]
    across = (np.arange(width, dtype=np.float32) - np.float32(view.centre_px)) / view.focal_px
    veil = smooth(across[None, :] * far + drift + 4096, far * 1.6 + drift + 0 * across[None, :])
    thick = np.clip((veil + weather.cover * 1.3 - 0.55) * 2.2, 0.0, 1.0)[:, :, None]
    cloud = np.array(weather.cloud, dtype=np.float32) * (1 - 0.12 * thick)
    result: Floats = ramp_H13 + (cloud - ramp_H13) * (thick * 0.9)
    return result


def light(
    view: View, weather: Weather, inverse_HW: Floats, lamps: list[tuple[float, float, float]]
) -> Floats:
    """Return light on every pixel from the sky, street lamps at `lamps` and the ego headlights.

    Shape (H, W, 3), or (3,) if it is uniform.
    """
    height, width = view.size_hw
    base = np.array(weather.light, dtype=np.float32)
    if weather.night < 0.4:
        return base
    z = 1.0 / inverse_HW
    columns = np.arange(width, dtype=np.float32)[None, :] - np.float32(view.centre_px)
    rows = np.arange(height, dtype=np.float32)[:, None] - np.float32(view.horizon_px)
    scale = z * np.float32(1.0 / view.focal_px)
    x, y = columns * scale, np.float32(view.mount_m) - rows * scale
    glow, beam = lamplight(x, y, z, lamps), headlights(x, y, z)
    warm = np.array([1.0, 0.76, 0.46], dtype=np.float32) * np.float32(0.62 * weather.night)
    cold = np.array([0.86, 0.88, 0.86], dtype=np.float32) * np.float32(0.85 * weather.night)
    result = np.empty((height, width, 3), dtype=np.float32)
    for channel in range(3):
        result[:, :, channel] = base[channel] + glow * warm[channel] + beam * cold[channel]
    return result


def clearness(weather: Weather, inverse_HW: Floats) -> Floats:
    """Return the share of light that reaches the camera through the air (Koschmieder's law)."""
    table = np.array([math.exp(-weather.fog_per_m * i / 2) for i in range(1000)], dtype=np.float32)
    clear: Floats = table[np.minimum(2.0 / inverse_HW, 999.0).astype(np.int32)]
    return clear


def reflections(
    picture_HW3: Floats, wet_HW: Floats, standing_HW: npt.NDArray[np.bool_], top: int
) -> Floats:
    """Blend into wet ground the mirror image of what stands above it, ruffled by drops.

    `standing_HW` is true for pixels that are not wet ground; each ground pixel mirrors about the
    lowest standing pixel above it in its column.
    """
    height, width = wet_HW.shape
    rows = np.arange(height, dtype=np.int32)[:, None]
    foot = np.maximum.accumulate(np.where(standing_HW, rows, 0), axis=0)[top:]
    columns = np.broadcast_to(np.arange(width, dtype=np.int32), foot.shape)
    ripple = (white(columns, rows[top:] + 0 * columns) * 2.2).astype(np.int32)
    mirror = np.zeros((height - top, width, 3), dtype=np.float32)
    for tap in (0, 3, 7):  # a rough surface smears vertically
        source = np.clip(2 * foot - rows[top:] - tap + ripple, 0, height - 1)
        mirror += picture_HW3.reshape(-1, 3)[source * width + columns]
    share = wet_HW[top:, :, None]
    darker = picture_HW3[top:] * (1 - share)  # wet tarmac is darker, and most of it reflects
    return np.concatenate([picture_HW3[:top], darker + mirror * (share / 3)])


def halos(canvas: Canvas, picture_HW3: Floats, inverse_HW: Floats, weather: Weather) -> None:
    """Add the halo of every lamp that is not hidden, in place."""
    view = canvas.view
    height, width = view.size_hw
    for lamp in canvas.glows:
        column, row = canvas.project(lamp.x_m, lamp.y_m, lamp.z_m)
        i, j = round(row), round(column)
        if not (0 <= i < height and 0 <= j < width):
            continue
        if 1.0 / float(inverse_HW[i, j]) < lamp.z_m - 1.5:
            continue
        size = min(max(view.focal_px * lamp.radius_m / lamp.z_m, 1.2), 0.08 * width)
        reach = int(4 * size) + 1
        y0, y1 = max(i - reach, 0), min(i + reach + 1, height)
        x0, x1 = max(j - reach, 0), min(j + reach + 1, width)
        dy = np.arange(y0, y1, dtype=np.float32)[:, None] - i
        dx = np.arange(x0, x1, dtype=np.float32)[None, :] - j
        falloff = np.maximum(1.0 / (1.0 + (dx * dx + dy * dy) * (1.0 / (size * size))) - 0.06, 0.0)
        strength = (0.35 + 0.55 * weather.night) * math.exp(-weather.fog_per_m * lamp.z_m)
        colour = np.array(lamp.colour, dtype=np.float32) * strength
        picture_HW3[y0:y1, x0:x1] += (falloff * falloff)[:, :, None] * colour


def streaks(picture_HW3: Floats, weather: Weather, rng: np.random.Generator) -> None:
    """Add falling drops as short bright lines, in place; labels are unaffected."""
    height, width = picture_HW3.shape[:2]
    count = weather.streaks * height * width // 10_000
    if not count:
        return
    flat = streak_mask((height, width), count, rng)
    picture_HW3 += (0.9 - picture_HW3) * flat[:, :, None]


def lens(picture_HW3: Floats, weather: Weather, tint: Rgb, rng: np.random.Generator) -> Floats:
    """Blur slightly, tint as this city's camera does, add sensor noise; result 0-255."""
    soft = picture_HW3 * np.float32(0.76)
    soft[:, 1:] += picture_HW3[:, :-1] * np.float32(0.06)
    soft[:, :-1] += picture_HW3[:, 1:] * np.float32(0.06)
    soft[1:] += picture_HW3[:-1] * np.float32(0.06)
    soft[:-1] += picture_HW3[1:] * np.float32(0.06)
    soft[0] += picture_HW3[0] * np.float32(0.06)
    soft[-1] += picture_HW3[-1] * np.float32(0.06)
    soft[:, 0] += picture_HW3[:, 0] * np.float32(0.06)
    soft[:, -1] += picture_HW3[:, -1] * np.float32(0.06)
    soft *= np.array(tint, dtype=np.float32) * np.float32(255.0)
    grain = rng.random(soft.shape, dtype=np.float32) + rng.random(soft.shape, dtype=np.float32)
    soft += (grain - 1.0) * np.float32(weather.noise * 2.45)  # triangular: sigma = 1/sqrt(6)
    return soft
