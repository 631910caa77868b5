"""The look of surfaces before light and weather: colour and emission of every pixel.

All pixels of one material are processed at once, with (u, y) metres on their surface recovered from
the surface's plane. Patterns finer than a pixel fade to their mean, so distant ones do not flicker.
P = pixels of the objects in one picture, K = pixels of one material.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.data.synthetic import materials as m
from fleetseg.data.synthetic.canvas import Canvas, Floats
from fleetseg.data.weather.noise import Ints, smooth, white


@dataclass(frozen=True)
class Patch:
    """The pixels of one material: where they lie on their surfaces, and their parameters."""

    ids_K: Ints
    u_K: Floats  # metres along the surface
    y_K: Floats  # metres above the ground
    du_K: Floats  # metres along the surface per pixel
    dy_K: Floats  # metres up per pixel
    colour_K3: Floats
    accent_K3: Floats
    grain_K4: Floats
    night: float  # 0 day - 1 night, for lit windows


@dataclass(frozen=True)
class Painted:
    """Colour, emission (0-1) and inverse distance of the object pixels; flat picture indices."""

    index_P: npt.NDArray[np.intp]
    colour_P3: Floats
    glow_P: Floats
    inverse_P: Floats
    labels_P: npt.NDArray[np.uint8]


def paint_objects(canvas: Canvas, night: float) -> Painted:
    """Colour all object pixels of the canvas."""
    ids = canvas.ids_HW.ravel()
    index = np.flatnonzero(ids >= canvas.first_id)
    table = np.array(canvas.rows, dtype=np.float32).reshape(len(canvas.rows), -1)
    own = ids[index] - canvas.first_id
    width = canvas.view.size_hw[1]
    column = (index % width).astype(np.float32)
    row = (index // width).astype(np.float32)
    plane = np.ascontiguousarray(table[:, 2:6].T)
    inverse = np.maximum(plane[0][own] * column + plane[1][own], np.float32(1e-3))
    colour = table[:, 6:9][own]
    glow = np.zeros(len(index), dtype=np.float32)
    materials = table[:, 1].astype(np.int8)[own]
    view = canvas.view
    for material, texture in TEXTURES.items():
        chosen = np.flatnonzero(materials == material)
        if not len(chosen):
            continue
        mine, scale = own[chosen], 1.0 / inverse[chosen]
        u = (plane[2][mine] * column[chosen] + plane[3][mine]) * scale
        y = view.mount_m - (row[chosen] - np.float32(view.horizon_px)) * scale / view.focal_px
        du = np.abs(plane[2][mine] - plane[0][mine] * u) * scale
        patch = Patch(
            mine, u, y, du, scale / np.float32(view.focal_px), colour[chosen],
            table[:, 9:12][mine], table[:, 12:16][mine], night,
        )  # fmt: skip
        colour[chosen], glow[chosen] = texture(patch)
    labels = table[:, 0].astype(np.uint8)[own]
    return Painted(index, colour, glow, inverse, labels)


Textured = tuple[Floats, Floats | float]


def _plain(patch: Patch) -> Textured:
    gain = 1 + 0.05 * smooth(patch.u_K * 30 + patch.ids_K * 7, patch.y_K * 30)
    return patch.colour_K3 * gain[:, None], 0.0


def _plaster(patch: Patch) -> Textured:
    stain = smooth(patch.u_K * 12 + patch.ids_K * 37, patch.y_K * 5)
    grime = np.minimum(patch.y_K * 0.3, 1.0)
    gain = 0.90 + 0.12 * stain + 0.08 * grime
    return _with_windows(patch, patch.colour_K3 * gain[:, None])


def _brick(patch: Patch) -> Textured:
    course = np.floor(patch.y_K * 6.0)
    along = patch.u_K * 3.0 + 0.5 * np.mod(course, 2.0)
    fade = np.clip(1.6 - patch.dy_K * 14.0, 0.0, 1.0) * np.clip(1.6 - patch.du_K * 7.0, 0.0, 1.0)
    tone = white(np.floor(along) + patch.ids_K * 3, course) * 0.22
    mortar = (np.mod(patch.y_K * 6.0, 1.0) < 0.16) | (np.mod(along, 1.0) < 0.08)
    gain = 1 + (tone + 0.20 * mortar) * fade + 0.16 * smooth(patch.u_K * 9, patch.y_K * 9)
    return _with_windows(patch, patch.colour_K3 * gain[:, None])


def _cover(position: Floats, share: Floats, foot: Floats) -> Floats:
    """Return pixel coverage by the middle `share` of each unit cell; foot = pixel size in cells."""
    distance = np.abs(np.mod(position, 1.0) - 0.5)
    foot = np.maximum(foot, 1e-3)
    sharp = np.clip((share / 2 - distance) / foot + 0.5, 0.0, 1.0)
    far = np.clip(foot * 1.6 - 0.4, 0.0, 1.0)
    covered: Floats = sharp + (share - sharp) * far
    return covered


def _with_windows(patch: Patch, wall_K3: Floats) -> Textured:
    pitch, floor, share_w, share_h = patch.grain_K4.T
    across, up = patch.u_K / pitch, patch.y_K / floor
    foot_u, foot_y = patch.du_K / pitch, patch.dy_K / floor
    frame = _cover(across, share_w + 0.10, foot_u) * _cover(up, share_h + 0.09, foot_y)
    pane = _cover(across, share_w, foot_u) * _cover(up, share_h, foot_y)
    cell = white(np.floor(across) + patch.ids_K * 13, np.floor(up) + patch.ids_K * 29)
    sheen = 0.30 * np.mod(up, 1.0) + 0.15 * cell
    lit = (cell > 0.25) * np.float32(patch.night)
    glass_K3 = patch.accent_K3 * (0.8 + sheen)[:, None] + (0.10 * sheen)[:, None]
    warm = np.array([0.95, 0.74, 0.42], dtype=np.float32)
    glass_K3 = glass_K3 + (warm * (0.75 + 0.25 * cell)[:, None] - glass_K3) * lit[:, None]
    trim_K3 = wall_K3 * 0.55 + 0.36
    mixed = wall_K3 + (trim_K3 - wall_K3) * frame[:, None]
    mixed = mixed + (glass_K3 - mixed) * pane[:, None]
    return mixed, pane * lit * np.float32(0.8)


def _tower(patch: Patch) -> Textured:
    pitch, floor, share_w, share_h = patch.grain_K4.T
    across, up = patch.u_K / pitch, patch.y_K / floor
    pane = _cover(across, share_w, patch.du_K / pitch) * _cover(up, share_h, patch.dy_K / floor)
    cell = white(np.floor(across) + patch.ids_K * 13, np.floor(up) + patch.ids_K * 29)
    sky = np.clip(patch.y_K * 0.012 + 0.25 * smooth(patch.u_K * 4, patch.y_K * 4), 0.0, 0.5)
    glass = patch.colour_K3 * (0.55 + 0.12 * cell)[:, None] + (sky * 0.5)[:, None]
    lit = (cell > 0.1) * np.float32(patch.night)
    warm = np.array([0.86, 0.80, 0.62], dtype=np.float32)
    glass = glass + (warm * (0.7 + 0.3 * cell)[:, None] - glass) * lit[:, None]
    frame = patch.colour_K3 * (1.0 + 0.08 * smooth(patch.u_K * 8, patch.y_K * 8))[:, None]
    return frame + (glass - frame) * pane[:, None], pane * lit * np.float32(0.7)


def _leaves(patch: Patch) -> Textured:
    u, y = patch.u_K + patch.ids_K * 1.7, patch.y_K
    strength = patch.grain_K4[:, 0]
    fine = white(u * 22, y * 22) * np.clip(1.4 - patch.dy_K * 8, 0.25, 1.0)
    clumps = smooth(u * 22, y * 22)
    gain = 1 + strength * (0.26 * fine + 0.60 * clumps)
    gain = np.where(clumps + 0.3 * fine < -0.42, gain * 0.5, gain)  # holes between the leaves
    colour = patch.colour_K3 * np.maximum(gain, 0.1)[:, None]
    colour[:, 0] += 0.05 * strength * fine
    return colour, 0.0


def _bars(patch: Patch) -> Textured:
    pitch, height, share = patch.grain_K4[:, 0], patch.grain_K4[:, 1], patch.grain_K4[:, 2]
    bar = _cover(patch.u_K / pitch, share, patch.du_K / pitch)
    rail = (np.abs(patch.y_K - height * 0.88) < 0.06) | (np.abs(patch.y_K - 0.22) < 0.05)
    bar = np.maximum(bar, rail)[:, None]
    return patch.accent_K3 + (patch.colour_K3 - patch.accent_K3) * bar, 0.0


def _tiles(patch: Patch) -> Textured:
    rows = np.mod(patch.y_K * 3.5, 1.0) < 0.25
    fade = np.clip(1.5 - patch.dy_K * 8.0, 0.0, 1.0)
    gain = 1 - 0.25 * rows * fade + 0.22 * smooth(patch.u_K * 14, patch.y_K * 14)
    return patch.colour_K3 * gain[:, None], 0.0


def _glass(patch: Patch) -> Textured:
    sheen = np.clip(
        0.30 * (patch.y_K - 0.8) + 0.16 * smooth(patch.u_K * 40, patch.y_K * 40), 0, 0.4
    )
    return patch.colour_K3 + sheen[:, None], 0.0


def _body(patch: Patch) -> Textured:
    gain = (
        0.74 + 0.30 * np.clip(patch.y_K, 0.0, 1.0) + 0.06 * smooth(patch.u_K * 40, patch.y_K * 60)
    )
    gloss = 0.10 * np.clip(1 - np.abs(patch.y_K - 0.86) * 9, 0.0, 1.0)
    return patch.colour_K3 * gain[:, None] + gloss[:, None], 0.0


def _emit(patch: Patch) -> Textured:
    return patch.colour_K3, 1.0


def _shop(patch: Patch) -> Textured:
    post = np.mod(patch.u_K, 1.6) < 0.12
    goods = smooth(patch.u_K * 50 + patch.ids_K * 11, patch.y_K * 50)
    shelf = white(np.floor(patch.u_K * 2.5) + patch.ids_K, np.floor(patch.y_K * 2.0))
    gain = 0.8 + 0.5 * goods + 0.35 * shelf * (patch.y_K < 1.7)
    colour = patch.colour_K3 * gain[:, None] + 0.05 * patch.y_K[:, None]
    lit = np.float32(patch.night)
    colour = colour + (patch.accent_K3 * (1.0 + 0.5 * goods)[:, None] - colour) * (0.85 * lit)
    colour[post] = 0.16
    return colour, np.where(post, np.float32(0), lit * np.float32(0.8))


TEXTURES: dict[int, Callable[[Patch], Textured]] = {
    m.PLAIN: _plain,
    m.PLASTER: _plaster,
    m.BRICK: _brick,
    m.TOWER: _tower,
    m.LEAVES: _leaves,
    m.BARS: _bars,
    m.TILES: _tiles,
    m.GLASS: _glass,
    m.BODY: _body,
    m.EMIT: _emit,
    m.SHOP: _shop,
}
