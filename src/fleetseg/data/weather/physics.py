"""Effects of air and lamps on light, for synthetic streets and for photographs of guessed depth.

Camera coordinates: x metres right, y up from the road, z forward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fleetseg.data.weather.noise import Floats

Rgb = tuple[float, float, float]
"""Red, green, blue as shares of white, 0-1."""
Point = tuple[float, float, float]
"""(x, y, z) in camera coordinates, metres."""


def veil(picture: Floats, clear: Floats, airlight: Floats) -> None:
    """Mix airlight into a picture, in place: J t + A (1 - t), Koschmieder's law.

    `clear` is t, the share of light that reaches the camera, `airlight` is A; all broadcast.
    """
    picture -= airlight
    picture *= clear
    picture += airlight


def lamplight(x: Floats, y: Floats, z: Floats, lamps: Sequence[Point]) -> Floats:
    """Return the light of street lamps on points (x, y, z), by the inverse-square law."""
    # |p - l|^2 = |p|^2 - 2 p.l + |l|^2, so each lamp costs few passes over the picture.
    square = x * x + y * y + z * z
    glow = np.zeros(z.shape, dtype=np.float32)
    for lamp_x, lamp_y, lamp_z in lamps:
        lamp_y -= 0.6  # the lamp's cover shields what is above it
        constant = lamp_x * lamp_x + lamp_y * lamp_y + lamp_z * lamp_z + 14.0
        reach = square + np.float32(constant)
        reach -= x * np.float32(2 * lamp_x)
        reach -= y * np.float32(2 * lamp_y)
        reach -= z * np.float32(2 * lamp_z)
        glow += np.float32(16.0) / np.maximum(reach, np.float32(10.0))
    return glow


def headlights(x: Floats, y: Floats, z: Floats) -> Floats:
    """Return the light of the ego car's dipped beam on points (x, y, z)."""
    ahead = 1.0 / (1.0 + np.square(z * np.float32(1 / 17.0)))
    aside = np.square(x / (1.6 + 0.20 * z))
    near = np.minimum(z * np.float32(1 / 3.0), np.float32(1.0))
    beam: Floats = (
        ahead / (1.0 + aside * aside) * np.where(y < 1.3, np.float32(1), np.float32(0.3)) * near
    )
    return beam


def streak_mask(
    size_hw: tuple[int, int],
    count: int,
    rng: np.random.Generator,
    *,
    length_px: tuple[float, float] = (4, 10),
    gain: tuple[float, float] = (0.05, 0.11),
    slant: tuple[float, float] = (0.10, 0.10),
) -> Floats:
    """Return falling drops as short slanting lines, 0 elsewhere; each pair is (least, spread).

    A slant is in columns per row.
    """
    height, width = size_hw
    columns = rng.random(count) * width
    rows = rng.random(count) * height
    lengths = length_px[0] + length_px[1] * rng.random(count)
    gains = (gain[0] + gain[1] * rng.random(count)).astype(np.float32)
    slope = slant[0] + slant[1] * float(rng.random())
    steps = np.arange(int(sum(length_px)))
    inside = steps[None, :] < lengths[:, None]
    y = (rows[:, None] + steps).astype(np.int32) % height
    x = (columns[:, None] + slope * steps).astype(np.int32) % width
    flat = np.zeros((height, width), dtype=np.float32)
    flat[y[inside], x[inside]] = np.broadcast_to(gains[:, None], y.shape)[inside]
    return flat
