"""Colours of the ground before lamps and weather: tarmac, paint, slabs, kerbs, grass, shadows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetseg.data.synthetic import ground
from fleetseg.data.synthetic.canvas import FAR_M, Canvas, Floats
from fleetseg.data.synthetic.cities import City, road_half_m, wall_line_m
from fleetseg.data.synthetic.ground import Ground
from fleetseg.data.synthetic.street import Thing
from fleetseg.data.synthetic.weather import Weather
from fleetseg.data.weather.noise import smooth, white


def ground_colour(
    canvas: Canvas, floor: Ground, city: City, crossings_m: tuple[float, ...],
    air: Weather, things: list[Thing],
) -> Floats:  # fmt: skip
    """Colour every pixel below the horizon as ground, with shadows; shape (G, W, 3)."""
    view = canvas.view
    s, z = floor.s_GW + np.float32(512), floor.z_GW + np.float32(512)
    foot = floor.depth_GW[:, :1] * np.float32(1.0 / view.focal_px)
    fade = np.clip(0.16 / (foot * foot * (view.focal_px / 60) + 0.05), 0.0, 1.0)
    fine = white(s * 30, z * 14) * fade.astype(np.float32)
    patches = smooth(s * 9, z * 4)
    distance = np.abs(floor.s_GW)
    lane = np.abs(np.abs(np.mod(distance, city.lane_m) - city.lane_m / 2) - 0.75)
    gain = 1.0 + 0.10 * fine + 0.12 * patches - np.maximum(0.05 - 0.125 * lane, 0.0)
    colour: Floats = np.array(city.road, dtype=np.float32) * gain[:, :, None]
    _put(colour, (0.84, 0.84, 0.84), ground.markings(floor, city, view, crossings_m), patches)
    _put(colour, city.line, ground.centre_line(floor, city, view), patches)
    ids = floor.ids_HW[floor.top :]
    foot_GW = np.broadcast_to(foot, s.shape)
    chosen = ids == ground.PAVEMENT
    paving = _paving(city, s[chosen], z[chosen], foot_GW[chosen], fine[chosen], patches[chosen])
    from_kerb = np.abs(distance[chosen] - (road_half_m(city) + 0.08))
    kerb = from_kerb < np.maximum(0.09, foot_GW[chosen] * 0.5)
    paving[kerb] = np.array(city.paving, dtype=np.float32) * 1.12 + 0.04
    colour[chosen] = paving
    chosen = ids == ground.GRASS
    lush = 1.15 + 0.40 * fine[chosen] + 0.40 * patches[chosen]
    colour[chosen] = np.array(city.leaves[0], dtype=np.float32) * lush[:, None]
    colour *= (1.0 - _shadows(canvas, floor, city, air, things))[:, :, None]
    return colour


def _put(
    colour_GW3: Floats, paint: tuple[float, float, float], cover: Floats, patches: Floats
) -> None:
    """Blend worn paint onto the road by its coverage, in place."""
    where = cover > 0
    worn = (cover[where] * (0.83 + 0.25 * patches[where]))[:, None]
    under = colour_GW3[where]
    colour_GW3[where] = under + (np.array(paint, dtype=np.float32) - under) * worn


def _paving(
    city: City, s_K: Floats, z_K: Floats, foot_K: Floats, fine_K: Floats, patches_K: Floats
) -> Floats:
    slab = city.paving_m
    gap = 0.05 * slab + 0.015
    joint = (np.mod(s_K, slab) < gap) | (np.mod(z_K, slab) < gap)
    fade = np.clip(1.4 - foot_K * (6.0 / slab), 0.0, 1.0)
    tone = white(np.floor(s_K / slab), np.floor(z_K / slab)) * 0.09
    gain = 1 + fade * (tone - 0.16 * joint) + 0.05 * fine_K + 0.10 * patches_K
    tiles: Floats = np.array(city.paving, dtype=np.float32) * gain[:, None].astype(np.float32)
    return tiles


def _shadows(
    canvas: Canvas, floor: Ground, city: City, air: Weather, things: list[Thing]
) -> Floats:
    """Return the share of light that objects and, in sun, houses take from the ground."""
    soft = 0.45 + 0.55 * min(1.0, air.sun / 0.3)
    dark = canvas.shade_HW[floor.top :].astype(np.float32) * np.float32(soft * 0.85 / 255.0)
    if air.sun_reach:
        sun = 1 if canvas.sun_xz[0] > 0 else -1
        reach = _reach(canvas.view.z_m - 40.0, sun, air.sun_reach, things)
        index = np.clip(floor.z_GW - np.float32(canvas.view.z_m - 40.0), 0, len(reach) - 1)
        # The longest shadow ends before the far pavement, so no street is entirely dark.
        far = np.minimum(reach[index.astype(np.int32)], wall_line_m(city) * 1.45)
        in_shade = floor.s_GW * sun > wall_line_m(city) - far
        np.maximum(dark, in_shade * np.float32(0.39), out=dark)
    return dark


def _reach(
    start_m: float, sun: int, per_height: float, things: list[Thing]
) -> npt.NDArray[np.float32]:
    """Return the length of the houses' shadow across the street, per metre from `start_m` on."""
    reach = np.zeros(int(FAR_M) + 140, dtype=np.float32)
    for thing in things:
        if thing.kind == "house" and thing.s_m * sun > 0:
            low, high = thing.z_m - start_m, thing.z_m + thing.length_m - start_m
            reach[max(int(low), 0) : max(int(high), 0)] = thing.height_m * per_height
    return reach
