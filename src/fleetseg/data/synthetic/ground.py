"""The ground: which pixel is road, pavement, grass or sky, and what is painted on the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.data.synthetic.canvas import FAR_M, Floats, View
from fleetseg.data.synthetic.cities import City, road_half_m, wall_line_m
from fleetseg.data.synthetic.street import CROSSING_HALF_M

SKY, ROAD, PAVEMENT, GRASS = 0, 1, 2, 3
"""Ids of the base layer."""
GROUND_LABELS = (0, 3, 4, 5)  # CamVid-11: sky, road, pavement, tree (all vegetation)


@dataclass(frozen=True)
class Ground:
    """Per pixel of the rows below the horizon (from `top`): distance and street coordinates."""

    top: int
    depth_GW: Floats
    s_GW: Floats
    z_GW: Floats
    crossing_GW: npt.NDArray[np.bool_]  # on the ground of a side street
    ids_HW: npt.NDArray[np.int32]


def lay(view: View, city: City, crossings_m: tuple[float, ...]) -> Ground:
    """Intersect every pixel's ray with the flat ground and determine what lies there."""
    height, width = view.size_hw
    top = min(max(int(np.floor(view.horizon_px)) + 2, 1), height - 1)
    rows = np.arange(top, height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    depth_G1: Floats = np.float32(view.focal_px * view.mount_m) / (
        rows - np.float32(view.horizon_px)
    )
    across_GW = (columns - np.float32(view.centre_px)) / np.float32(view.focal_px) * depth_G1
    sin, cos = (np.float32(value) for value in view.axes)
    z_GW: Floats = np.float32(view.z_m) + cos * depth_G1 - sin * across_GW
    x_GW = sin * depth_G1 + cos * across_GW + np.float32(view.s_m + view.offset(view.z_m))
    s_GW: Floats = x_GW - _offsets(view, z_GW)
    crossing_GW = np.zeros(z_GW.shape, dtype=np.bool_)
    for middle in crossings_m:
        crossing_GW |= np.abs(z_GW - np.float32(middle)) < CROSSING_HALF_M
    ids_HW = np.zeros((height, width), dtype=np.int32)
    ids_HW[top:] = _zones(city, np.abs(s_GW), crossing_GW)
    depth_GW = np.broadcast_to(depth_G1, s_GW.shape)
    return Ground(top, depth_GW, s_GW, z_GW, crossing_GW, ids_HW)


def _offsets(view: View, z_GW: Floats) -> Floats:
    """Return the street's offset at every z, from a table in steps of one metre."""
    start = view.z_m - 40.0
    table = np.array([view.offset(start + i) for i in range(int(FAR_M) + 140)], dtype=np.float32)
    index = np.clip(z_GW - np.float32(start), 0, len(table) - 2)
    whole = index.astype(np.int32)
    part = index - whole
    low: Floats = table[whole]
    between: Floats = low + (table[whole + 1] - low) * part
    return between


def _zones(
    city: City, distance_GW: Floats, crossing_GW: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    kerb = road_half_m(city)
    verge = kerb + city.verge_m
    pavement = verge + city.pavement_m
    ids = np.full(distance_GW.shape, GRASS if city.garden_m > 2 else PAVEMENT, dtype=np.int32)
    ids[distance_GW < pavement] = PAVEMENT
    if city.verge_m:
        ids[distance_GW < verge] = GRASS
        ids[distance_GW < kerb + 0.15] = PAVEMENT
    ids[distance_GW > wall_line_m(city) + 12.0] = GRASS
    ids[(distance_GW < kerb) | crossing_GW] = ROAD
    return ids


def markings(ground: Ground, city: City, view: View, crossings_m: tuple[float, ...]) -> Floats:
    """Return the share of each ground pixel covered with paint, 0-1 (centre line excluded)."""
    foot = ground.depth_GW * np.float32(1.0 / view.focal_px)  # width of a pixel on the road
    s, z = ground.s_GW, ground.z_GW
    half = road_half_m(city)
    paint = np.zeros(s.shape, dtype=np.float32)
    dashed = (np.mod(z, 9.0) < 3.5).astype(np.float32)
    for number in range(1, city.lanes):
        np.maximum(paint, stripe(np.abs(s), number * city.lane_m, 0.12, foot) * dashed, out=paint)
    edge = half - city.parking_m - city.bike_lane_m
    if city.bike_lane_m:
        np.maximum(paint, stripe(np.abs(s), edge, 0.18, foot), out=paint)
    elif city.parking_m:
        bays = (np.mod(z, 5.5) < 0.12) & (np.abs(s) > edge) & (np.abs(s) < half)
        np.maximum(paint, stripe(np.abs(s), edge, 0.10, foot) * (1 - dashed) * 0.7, out=paint)
        np.maximum(paint, bays.astype(np.float32) * 0.6, out=paint)
    else:
        np.maximum(paint, stripe(np.abs(s), half - 0.35, 0.12, foot), out=paint)
    paint[ground.crossing_GW] = 0.0
    for middle in crossings_m:
        before = np.float32(middle - CROSSING_HALF_M)
        zebra = (np.abs(z - (before - 2.5)) < 1.6) & (np.abs(s) < half)
        paint[zebra] = 0.0
        fade = np.minimum(0.35 / (foot + 0.05), 1.0)
        bars = (np.mod(s + 50.0, 1.1) < 0.55) * fade + 0.5 * (1 - fade)
        paint[zebra] = bars[zebra]
        stop = (np.abs(z - (before - 5.3)) < 0.25) & (s * city.side > 0) & (np.abs(s) < edge)
        paint[stop] = 1.0
    return paint


def centre_line(ground: Ground, city: City, view: View) -> Floats:
    """Return the share of each ground pixel covered by the centre line, 0-1."""
    foot = ground.depth_GW * np.float32(1.0 / view.focal_px)
    if city.lanes > 1:
        line = stripe(np.abs(ground.s_GW), 0.14, 0.12, foot)
    else:
        line = stripe(ground.s_GW, 0.0, 0.14, foot)
        line = line * (np.mod(ground.z_GW, 7.0) < 3.0)
    line[ground.crossing_GW] = 0.0
    return line


def stripe(s: Floats, middle: float, width_m: float, foot: Floats) -> Floats:
    """Return pixel coverage of a line along the street, box-filtered over the pixel's footprint."""
    covered = (width_m / 2 - np.abs(s - np.float32(middle))) / foot + np.float32(0.5)
    cover: Floats = np.clip(covered, 0.0, 1.0) * np.minimum(width_m / foot, 1.0)
    return cover
