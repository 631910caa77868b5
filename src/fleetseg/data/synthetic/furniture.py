"""Draw static objects other than houses: trees, fences, lamps, signs, lights, bins, the skyline."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from fleetseg.data.labels import IGNORE
from fleetseg.data.synthetic import materials as m
from fleetseg.data.synthetic.canvas import FAR_M, Canvas, Rgb, Style, brighter
from fleetseg.data.synthetic.cities import City
from fleetseg.data.synthetic.street import Thing
from fleetseg.rng import generator

LAMP_LIGHT: Rgb = (1.0, 0.78, 0.46)


@lru_cache(maxsize=1)
def blobs() -> tuple[tuple[tuple[float, float], ...], ...]:
    """Twelve ragged unit discs, for crowns and clouds of leaves."""
    rng = generator(0, purpose="synthetic blobs")
    shapes = []
    for _ in range(12):
        angles = [2 * math.pi * i / 18 for i in range(18)]
        radii = [float(rng.uniform(0.74, 1.1)) for _ in angles]
        shapes.append(
            tuple((r * math.cos(a), r * math.sin(a)) for a, r in zip(angles, radii, strict=True))
        )
    return tuple(shapes)


def _blob(
    canvas: Canvas, x: float, z: float, centre: tuple[float, float], radius: tuple[float, float],
    style: Style, number: int,
) -> None:  # fmt: skip
    shape = blobs()[number % 12]
    points = [(centre[0] + radius[0] * u, centre[1] + radius[1] * v) for u, v in shape]
    canvas.board(x, z, points, style)


def _trunk(canvas: Canvas, x: float, z: float, top: float, radius: float, bark: Rgb) -> None:
    shape = [(-radius * 1.3, 0.0), (-radius * 0.7, top), (radius * 0.7, top), (radius * 1.3, 0.0)]
    canvas.board(x, z, shape, Style(m.TREE, m.LEAVES, bark, grain=(0.5, 0.0, 0.0, 0.0)))


def leafy(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a round, tall or light tree: a trunk under a crown of overlapping blobs."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    wide = thing.width_m / 2 * (0.45 if thing.kind == "poplar" else 1.0)
    bark = (0.80, 0.78, 0.74) if thing.kind == "birch" else (0.30, 0.24, 0.18)
    base = thing.height_m * (0.22 if thing.kind == "poplar" else 0.32)
    _trunk(canvas, x, z, base + 0.8, 0.10 + 0.02 * thing.height_m, bark)
    middle, tall = (base + thing.height_m) / 2, (thing.height_m - base) / 2
    number = int(thing.phase * 1000)
    grain = (0.8 if thing.kind == "birch" else 1.0, 0.0, 0.0, 0.0)
    lobes = 3 if z > 60 else 8
    for i in range(lobes):  # lower and outer lobes first and darker, the lit top last
        angle = 2.4 * i + 6.0 * thing.phase
        reach = 0.55 * (1 - i / lobes) + 0.12
        centre = (wide * reach * math.cos(angle), middle + tall * (reach * math.sin(angle) * 0.9))
        gain = 0.72 + 0.5 * i / lobes + 0.12 * math.sin(angle)
        size = 0.62 + 0.08 * math.sin(5.0 * angle)
        style = Style(m.TREE, m.LEAVES, brighter(thing.colour, gain), grain=grain)
        _blob(canvas, x, z, centre, (wide * size, tall * size), style, number + i)
    _ground_shadow(canvas, thing, wide * 0.9)


def palm(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a palm: a thin leaning trunk and a star of drooping fronds."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    lean = 0.8 * (thing.phase - 0.5)
    top = thing.height_m
    stem = [(-0.2, 0.0), (lean - 0.13, top), (lean + 0.13, top), (0.2, 0.0)]
    canvas.board(x, z, stem, Style(m.TREE, m.LEAVES, (0.42, 0.36, 0.28), grain=(0.5, 0, 0, 0)))
    for i in range(9):
        angle = 2 * math.pi * (i + thing.phase) / 9
        reach = 2.1 * math.cos(angle)
        lift = 0.9 * math.sin(angle) + 0.3
        frond = [
            (lean, top), (lean + reach * 0.5, top + lift + 0.15),
            (lean + reach, top + lift - 0.9), (lean + reach * 0.55, top + lift - 0.35),
        ]  # fmt: skip
        gain = 0.8 + 0.4 * math.sin(angle)
        style = Style(m.TREE, m.LEAVES, brighter(thing.colour, gain), grain=(0.6, 0, 0, 0))
        canvas.board(x, z, frond, style)
    _ground_shadow(canvas, thing, 1.2)


def bush(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a clump of shrubs."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    for i in range(3):
        style = Style(m.TREE, m.LEAVES, brighter(thing.colour, 0.8 + 0.15 * i), grain=(1, 0, 0, 0))
        centre = ((i - 1) * thing.width_m * 0.3, thing.height_m * (0.5 - 0.04 * i))
        radius = (thing.width_m * 0.4, thing.height_m * 0.55)
        _blob(canvas, x, z, centre, radius, style, int(thing.phase * 1000) + i)


def fence(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a fence (bars or planks) or a hedge along the street, and its two ends."""
    a = canvas.place(thing.s_m, thing.z_m)
    b = canvas.place(thing.s_m, thing.z_m + thing.length_m)
    hedge = thing.kind == "hedge"
    sheet = [(0.0, 0.0), (0.0, thing.height_m), (thing.length_m, thing.height_m)]
    sheet.append((thing.length_m, 0.0))
    if hedge:
        style = Style(m.TREE, m.LEAVES, thing.colour, grain=(0.7, 0.0, 0.0, 0.0))
        side = 1 if thing.s_m > 0 else -1
        back = canvas.place(thing.s_m + side * 0.7, thing.z_m)
        end = [(0.0, 0.0), (0.0, thing.height_m), (0.7, thing.height_m), (0.7, 0.0)]
        canvas.panel(a, back, end, style)
    else:
        pitch = (0.22, 0.42)[thing.variant]
        grain = (pitch, thing.height_m, 0.45 if thing.variant == 0 else 0.85, 0.0)
        style = Style(m.FENCE, m.BARS, thing.colour, brighter(thing.colour, 0.55), grain)
    canvas.panel(a, b, sheet, style)


def lamp(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a street lamp: mast, arm over the road, head, and its halo when lit."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    inward = -1.3 if thing.s_m > 0 else 1.3
    top = thing.height_m
    mast = Style(m.POLE, m.PLAIN, thing.colour)
    canvas.board(x, z, [(-0.10, 0), (-0.06, top), (0.06, top), (0.10, 0)], mast)
    canvas.board(x, z, [(0, top - 0.12), (0, top), (inward, top + 0.25), (inward, top + 0.1)], mast)
    head = [(inward * 0.8, top + 0.02), (inward * 0.8, top + 0.25)]
    head += [(inward * 1.35, top + 0.3), (inward * 1.35, top + 0.1)]
    light = Style(m.POLE, m.EMIT, LAMP_LIGHT) if lit else Style(m.POLE, m.PLAIN, (0.6, 0.6, 0.58))
    canvas.board(x, z, head, light)
    if lit:
        canvas.glow(x + inward, top, z, LAMP_LIGHT, 1.5)


SIGNS: tuple[tuple[str, Rgb, Rgb], ...] = (
    ("disc", (0.78, 0.10, 0.10), (0.92, 0.92, 0.90)),
    ("triangle", (0.78, 0.10, 0.10), (0.92, 0.92, 0.88)),
    ("disc", (0.10, 0.26, 0.62), (0.16, 0.34, 0.72)),
    ("square", (0.10, 0.28, 0.62), (0.90, 0.92, 0.94)),
    ("board", (0.10, 0.36, 0.24), (0.86, 0.90, 0.86)),
    ("diamond", (0.90, 0.90, 0.86), (0.88, 0.68, 0.12)),
)
SHAPES: dict[str, tuple[tuple[float, float], ...]] = {
    "disc": tuple((math.cos(math.pi * i / 6), math.sin(math.pi * i / 6)) for i in range(12)),
    "triangle": ((-1.1, -0.8), (0.0, 1.1), (1.1, -0.8)),
    "square": ((-0.9, -0.9), (-0.9, 0.9), (0.9, 0.9), (0.9, -0.9)),
    "board": ((-2.4, -1.0), (-2.4, 1.0), (2.4, 1.0), (2.4, -1.0)),
    "diamond": ((-1.1, 0.0), (0.0, 1.1), (1.1, 0.0), (0.0, -1.1)),
}


def sign(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a traffic sign on its post; signs for oncoming traffic show a grey back."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    if z < 3.0:
        return
    y, radius = thing.height_m, 0.44
    post = [(-0.045, 0.0), (-0.045, y), (0.045, y), (0.045, 0.0)]
    canvas.board(x, z, post, Style(m.POLE, m.PLAIN, (0.52, 0.54, 0.54)))
    shape, rim, face = SIGNS[thing.variant]
    outline = SHAPES[shape]
    outer = Style(m.SIGN, m.PLAIN, rim if thing.heading < 0 else (0.46, 0.47, 0.48))
    canvas.board(x, z, [(radius * u, y + radius * v) for u, v in outline], outer)
    if thing.heading < 0:
        inner = Style(m.SIGN, m.PLAIN, face)
        size = 0.66 * radius
        canvas.board(x, z, [(size * u, y + size * v) for u, v in outline], inner)


def light(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a traffic light: post (pole) and housing with its lamps (sign)."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    if z < 3.0:
        return
    post = [(-0.07, 0.0), (-0.07, 2.5), (0.07, 2.5), (0.07, 0.0)]
    canvas.board(x, z, post, Style(m.POLE, m.PLAIN, (0.34, 0.35, 0.34)))
    box = [(-0.24, 2.4), (-0.24, 3.5), (0.24, 3.5), (0.24, 2.4)]
    canvas.board(x, z, box, Style(m.SIGN, m.PLAIN, (0.10, 0.11, 0.11)))
    if thing.heading > 0 or z > 70:
        return
    colours: tuple[Rgb, ...] = ((0.2, 0.95, 0.5), (1.0, 0.7, 0.1), (1.0, 0.16, 0.12))
    for number, colour in enumerate(colours):
        on = number == thing.variant
        style = Style(m.SIGN, m.EMIT if on else m.PLAIN, colour if on else brighter(colour, 0.25))
        y = 2.62 + 0.33 * number
        canvas.board(x, z, [(0.13 * u, y + 0.13 * v) for u, v in SHAPES["disc"]], style)
        if on:
            canvas.glow(x, y, z, brighter(colour, 0.5), 0.5)


def litter_bin(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a litter bin; it belongs to no class, so it is void."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    shape = [(-0.26, 0.0), (-0.3, 0.95), (0.3, 0.95), (0.26, 0.0)]
    canvas.board(x, z, shape, Style(IGNORE, m.PLAIN, thing.colour))


def skyline(canvas: Canvas, city: City, rng: np.random.Generator) -> None:
    """Draw the skyline: a row of distant houses and trees along the horizon."""
    column, width = -20.0, canvas.view.size_hw[1] + 20.0
    scale = canvas.view.focal_px / (FAR_M + 60.0)
    floor_px = canvas.view.horizon_px + 4.0
    plane = (0.0, 1.0 / (FAR_M + 60.0), 1.0 / canvas.view.focal_px, 0.0)
    while column < width:
        span = float(rng.uniform(4.0, 16.0))
        houses = rng.random() < 0.55
        tall = float(rng.uniform(5.0, 9.0 + (45.0 if city.wall_grain > 1 else 0.0) * houses))
        top = canvas.view.horizon_px - tall * scale
        points = [
            (column, floor_px),
            (column, top),
            (column + span, top),
            (column + span, floor_px),
        ]
        if houses:
            colour = city.walls[int(rng.integers(len(city.walls)))]
            style = Style(m.BUILDING, m.PLAIN, brighter(colour, 0.9))
        else:
            points.insert(2, (column + span / 2, top - 0.4 * span))
            style = Style(m.TREE, m.LEAVES, city.leaves[0], grain=(1.0, 0.0, 0.0, 0.0))
        canvas.fill(points, plane, style, 1.0)
        column += span * 0.9


def _ground_shadow(canvas: Canvas, thing: Thing, radius: float) -> None:
    corners = []
    for i in range(8):
        angle = math.pi * i / 4
        s, z = thing.s_m + radius * math.cos(angle), thing.z_m + radius * math.sin(angle)
        corners.append(canvas.place(s, z))
    canvas.shadow(corners, 110)
