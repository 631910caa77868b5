"""Camera, street bend and canvas: every pixel belongs to exactly one painted surface.

Street coordinates: s metres to the right of the street's middle, y metres up, z metres along it.
Camera coordinates: x metres right, z metres forward. Surfaces are drawn far to near as integer
ids; label, depth and colour of a pixel all derive from its id, so they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Rgb = tuple[float, float, float]
"""Red, green, blue as shares of white, 0-1."""
Ground = tuple[float, float]
"""A point on the ground in camera coordinates: (x right, z forward), metres."""
Floats = npt.NDArray[np.float32]

NEAR_M = 0.5
FAR_M = 170.0


@dataclass(frozen=True, slots=True)
class View:
    """A pinhole camera on a gently bending street."""

    size_hw: tuple[int, int]
    focal_px: float
    centre_px: float  # column of the optical axis
    horizon_px: float  # row of the horizon
    mount_m: float  # height of the camera over the road
    s_m: float
    z_m: float
    yaw: float  # radians, to the right, relative to the street's direction
    bend: tuple[float, float, float]  # amplitude_m, wavelength_m, phase

    def offset(self, z_m: float) -> float:
        """Return how far the street's middle lies to the right at z, in metres."""
        amplitude_m, wavelength_m, phase = self.bend
        return amplitude_m * math.sin(2 * math.pi * z_m / wavelength_m + phase)

    @property
    def axes(self) -> tuple[float, float]:
        """Return (sin, cos) of the camera's heading, which follows the street at the car."""
        slope = (self.offset(self.z_m + 1.0) - self.offset(self.z_m - 1.0)) / 2
        angle = math.atan(slope) + self.yaw
        return math.sin(angle), math.cos(angle)


class Style(NamedTuple):
    """Class and material of a surface; `grain` holds four parameters of the material."""

    label: int
    material: int
    colour: Rgb
    accent: Rgb = (0.0, 0.0, 0.0)
    grain: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


class Glow(NamedTuple):
    """A visible lamp: position in camera coordinates, colour, radius of its halo."""

    x_m: float
    y_m: float
    z_m: float
    colour: Rgb
    radius_m: float


@dataclass
class Canvas:
    """Collects surfaces far to near; `base_ids_HW` is what lies behind them (sky and ground)."""

    view: View
    base_ids_HW: npt.NDArray[np.int32]
    sun_xz: tuple[float, float] = (0.0, -1.0)  # direction of the light, camera coordinates
    contrast: float = 0.0  # how much brighter surfaces facing the sun are, 0-1
    rows: list[tuple[float, ...]] = field(default_factory=list)
    glows: list[Glow] = field(default_factory=list)

    def __post_init__(self) -> None:
        height, width = self.view.size_hw
        self._ids = Image.fromarray(self.base_ids_HW)
        self._draw = ImageDraw.Draw(self._ids)
        self._shade = Image.new("L", (width, height), 0)
        self._shade_draw = ImageDraw.Draw(self._shade)
        self._first_id = int(self.base_ids_HW.max()) + 1
        self._sin, self._cos = self.view.axes
        self._x0 = self.view.s_m + self.view.offset(self.view.z_m)

    @property
    def ids_HW(self) -> npt.NDArray[np.int32]:
        """Surface ids; ids below `first_id` are sky and ground."""
        return np.asarray(self._ids)

    @property
    def shade_HW(self) -> npt.NDArray[np.uint8]:
        """Shadow on the ground, 0 none - 255 dark."""
        return np.asarray(self._shade)

    @property
    def first_id(self) -> int:
        """Id of `rows[0]`."""
        return self._first_id

    def place(self, s_m: float, z_m: float) -> Ground:
        """Convert street coordinates to camera coordinates."""
        x = s_m + self.view.offset(z_m) - self._x0
        z = z_m - self.view.z_m
        return self._cos * x - self._sin * z, self._sin * x + self._cos * z

    def project(self, x_m: float, y_m: float, z_m: float) -> tuple[float, float]:
        """Convert camera coordinates to (column, row) in pixels."""
        view = self.view
        scale = view.focal_px / max(z_m, NEAR_M)
        column = view.centre_px + x_m * scale
        row = view.horizon_px + (view.mount_m - y_m) * scale
        reach = 4.0 * view.size_hw[1]
        return min(max(column, -reach), reach), min(max(row, -reach), reach)

    def panel(
        self, a: Ground, b: Ground, polygon_uy: Sequence[tuple[float, float]], style: Style
    ) -> None:
        """Draw a polygon, in metres along a->b and up, on the upright plane over a->b."""
        (xa, za), (xb, zb) = a, b
        length_m = math.hypot(xb - xa, zb - za)
        if (za < NEAR_M and zb < NEAR_M) or length_m < 1e-6:
            return
        low, high = 0.0, length_m
        if za < NEAR_M:
            low = length_m * (NEAR_M - za) / (zb - za)
        elif zb < NEAR_M:
            high = length_m * (NEAR_M - za) / (zb - za)
        dx, dz = (xb - xa) / length_m, (zb - za) / length_m
        points = []
        for u, y in polygon_uy:
            u = min(max(u, low), high)
            points.append(self.project(xa + dx * u, y, za + dz * u))
        self.fill(points, self._plane(a, (dx, dz), low, high), style, self._light(a, (dx, dz)))

    def board(
        self, x_m: float, z_m: float, polygon_xy: Sequence[tuple[float, float]], style: Style
    ) -> None:
        """Draw a polygon, in metres right of x and up, on a plane that faces the camera."""
        if z_m < NEAR_M:
            return
        view = self.view
        scale = view.focal_px / z_m
        column, row = view.centre_px + x_m * scale, view.horizon_px + view.mount_m * scale
        points = [(column + u * scale, row - y * scale) for u, y in polygon_xy]
        inverse = 1.0 / z_m
        u_step = 1.0 / view.focal_px
        self.fill(points, (0.0, inverse, u_step, -u_step * column), style, 1.0)

    def solid(
        self, points_xyz: Sequence[tuple[float, float, float]], style: Style, light: float = 1.0
    ) -> None:
        """Draw a small polygon in space, treated as lying at its mean distance."""
        if min(z for _, _, z in points_xyz) < NEAR_M:
            return
        inverse = len(points_xyz) / sum(z for _, _, z in points_xyz)
        points = [self.project(*point) for point in points_xyz]
        u_step = 1.0 / self.view.focal_px
        self.fill(points, (0.0, inverse, u_step, -u_step * points[0][0]), style, light)

    def fill(
        self,
        points_px: Sequence[tuple[float, float]],
        plane: tuple[float, float, float, float],
        style: Style,
        light: float,
    ) -> None:
        """Draw a polygon in pixels; plane = (a, b, p, q): 1/z = a col + b, u/z = p col + q."""
        height, width = self.view.size_hw
        columns = [x for x, _ in points_px]
        rows = [y for _, y in points_px]
        if max(columns) < 0 or min(columns) >= width or max(rows) < 0 or min(rows) >= height:
            return
        self._draw.polygon(points_px, fill=self._first_id + len(self.rows))
        red, green, blue = style.colour
        self.rows.append(
            (
                style.label,
                style.material,
                *plane,
                red * light,
                green * light,
                blue * light,
                *style.accent,
                *style.grain,
            )
        )

    def shadow(self, corners: Sequence[Ground], darkness: int) -> None:
        """Darken the ground inside a polygon of ground points."""
        if min(z for _, z in corners) < NEAR_M:
            return
        self._shade_draw.polygon([self.project(x, 0.0, z) for x, z in corners], fill=darkness)

    def glow(self, x_m: float, y_m: float, z_m: float, colour: Rgb, radius_m: float) -> None:
        """Record a lamp; its halo is added later unless something hides it."""
        if z_m > 1.0:
            self.glows.append(Glow(x_m, y_m, z_m, colour, radius_m))

    def _plane(
        self, a: Ground, step: Ground, low: float, high: float
    ) -> tuple[float, float, float, float]:
        z_low, z_high = a[1] + step[1] * low, a[1] + step[1] * high
        view = self.view
        column_low = view.centre_px + (a[0] + step[0] * low) * view.focal_px / z_low
        column_high = view.centre_px + (a[0] + step[0] * high) * view.focal_px / z_high
        span = column_high - column_low
        if abs(span) < 0.25:  # seen edge-on
            return 0.0, 1.0 / z_low, 0.0, low / z_low
        slope = (1.0 / z_high - 1.0 / z_low) / span
        u_slope = (high / z_high - low / z_low) / span
        return (
            slope,
            1.0 / z_low - slope * column_low,
            u_slope,
            low / z_low - u_slope * column_low,
        )

    def _light(self, a: Ground, step: Ground) -> float:
        normal = (step[1], -step[0])
        if normal[0] * a[0] + normal[1] * a[1] > 0:  # turn it to the camera
            normal = (-normal[0], -normal[1])
        facing = normal[0] * self.sun_xz[0] + normal[1] * self.sun_xz[1]
        return 1.0 + self.contrast * facing


def brighter(colour: Rgb, gain: float) -> Rgb:
    """Multiply a colour by a gain."""
    return colour[0] * gain, colour[1] * gain, colour[2] * gain
