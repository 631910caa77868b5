"""Draw people on foot and on bicycles as flat figures that face the camera."""

from __future__ import annotations

import math

from fleetseg.data.synthetic import materials as m
from fleetseg.data.synthetic.canvas import Canvas, Rgb, Style, brighter
from fleetseg.data.synthetic.cities import City
from fleetseg.data.synthetic.street import Thing

Point = tuple[float, float]
Part = tuple[Rgb, list[Point]]
"""A polygon of a figure: colour, and points in metres right of its middle and up."""
DARK: Rgb = (0.05, 0.05, 0.06)
SKINS: tuple[Rgb, ...] = (
    (0.80, 0.62, 0.50),
    (0.56, 0.38, 0.28),
    (0.34, 0.22, 0.16),
    (0.72, 0.52, 0.38),
)
HAIRS: tuple[Rgb, ...] = (
    (0.10, 0.08, 0.07),
    (0.34, 0.22, 0.12),
    (0.62, 0.52, 0.34),
    (0.5, 0.5, 0.5),
)
DISC = tuple((math.cos(math.pi * i / 4), math.sin(math.pi * i / 4)) for i in range(8))


def _figure(canvas: Canvas, x: float, z: float, label: int, parts: list[Part]) -> None:
    for colour, polygon in parts:
        canvas.board(x, z, polygon, Style(label, m.PLAIN, colour))


def _head(thing: Thing, u: float, y: float, size: float) -> list[Part]:
    skin = SKINS[thing.variant % 4]
    hair = HAIRS[(thing.variant // 4) % 4]
    face = [(u + size * 0.82 * a, y + size * b) for a, b in DISC]
    crown = [(u + size * 0.9 * a, y + 0.12 * size + size * max(b, 0.05)) for a, b in DISC]
    if thing.heading == 1:  # seen from behind: all hair
        left, right, chin, collar = u - 0.3 * size, u + 0.3 * size, y - size, y - 1.3 * size
        return [
            (hair, face),
            (skin, [(left, chin), (right, chin), (right, collar), (left, collar)]),
        ]
    return [(skin, face), (hair, crown)]


def pedestrian(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a person on foot: striding legs, coat, arms, head; some carry a bag."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    if z < 3.5:
        return
    h = thing.height_m
    swing = math.sin(6.28 * (thing.phase + 0.37 * canvas.view.z_m))
    stride = (0.17 if abs(thing.heading) > 1 else 0.07) * swing * h
    hip, neck = 0.50 * h, 0.83 * h
    legs, coat = thing.accent, thing.colour
    wide = 0.135 * h * (0.8 if abs(thing.heading) > 1 else 1.0)
    dim = brighter(coat, 0.75)
    parts: list[Part] = []
    for step, v in ((stride, -0.06), (-stride, 0.06)):
        foot = v * h * 0.8 + step
        lift = 0.03 * h if step > 0 else 0.0
        leg = [(v * h - 0.055 * h, hip), (v * h + 0.055 * h, hip)]
        leg += [(foot + 0.045 * h, lift), (foot - 0.045 * h, lift)]
        parts.append((legs if v < 0 else brighter(legs, 0.8), leg))
    hem = hip - (0.14 * h if thing.variant & 1 else 0.03 * h)
    torso = [(-wide * 0.85, hem), (-wide, neck - 0.03 * h), (-wide * 0.5, neck)]
    torso += [(wide * 0.5, neck), (wide, neck - 0.03 * h), (wide * 0.85, hem)]
    parts.append((coat, torso))
    for v, reach in ((-1.0, -stride), (1.0, stride)):
        hand = v * wide * 1.15 + 0.6 * reach
        arm = [(v * wide * 0.8, neck - 0.03 * h), (v * wide * 1.2, neck - 0.06 * h)]
        arm += [(hand + 0.03 * h, hip - 0.04 * h), (hand - 0.03 * h, hip - 0.04 * h)]
        parts.append((dim, arm))
    if thing.variant & 2:
        inner, outer, top = wide, wide * 1.7, hip + 0.16 * h
        if thing.variant & 4:
            inner, outer = -inner, -outer
        parts.append((DARK, [(inner, hip), (inner, top), (outer, top), (outer, hip)]))
    parts.extend(_head(thing, 0.0, 0.915 * h, 0.075 * h))
    _figure(canvas, x, z, m.PEDESTRIAN, parts)
    _foot_shadow(canvas, thing, 0.3)


def bicyclist(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a rider with a bicycle, seen from behind, the front or the side."""
    x, z = canvas.place(thing.s_m, thing.z_m)
    if z < 3.5:
        return
    parts = _rider_aside(canvas, thing) if abs(thing.heading) > 1 else _rider(canvas, thing)
    _figure(canvas, x, z, m.BICYCLIST, parts)
    if lit and abs(thing.heading) == 1:
        red = thing.heading > 0
        colour: Rgb = (1.0, 0.1, 0.1) if red else (1.0, 1.0, 0.9)
        lamp = [(-0.06, 0.66), (-0.06, 0.78), (0.06, 0.78), (0.06, 0.66)]
        canvas.board(x, z, lamp, Style(m.BICYCLIST, m.EMIT, colour))
        canvas.glow(x, 0.72, z, brighter(colour, 0.4), 0.3)
    _foot_shadow(canvas, thing, 0.4)


def _rider(canvas: Canvas, thing: Thing) -> list[Part]:
    """Wheel, frame, turning legs, back, arms and head, along the street."""
    h = thing.height_m / 1.75
    turn = math.sin(6.28 * (thing.phase + 0.21 * canvas.view.z_m))
    coat, legs = thing.colour, thing.accent
    metal = HAIRS[thing.variant % 4]
    lean = 0.03 * turn
    parts: list[Part] = [
        (DARK, [(-0.05, 0.0), (-0.05, 0.70), (0.05, 0.70), (0.05, 0.0)]),
        (metal, [(-0.03, 0.45), (-0.03, 0.95), (0.03, 0.95), (0.03, 0.45)]),
    ]
    for v, push in ((-1.0, turn), (1.0, -turn)):
        foot = 0.24 + 0.14 * push
        leg = [(v * 0.05, 0.92 * h), (v * 0.20, 0.92 * h), (v * 0.19, foot), (v * 0.09, foot)]
        parts.append((legs, leg))
    bar = [(-0.30, 1.0), (-0.30, 1.07), (0.30, 1.07), (0.30, 1.0)]
    top = 1.46 * h
    back = [(-0.19, 0.86 * h), (-0.21 + lean, top - 0.06), (-0.1 + lean, top), (0.1 + lean, top),
            (0.21 + lean, top - 0.06), (0.19, 0.86 * h)]  # fmt: skip
    arms = [[(v * 0.18 + lean, top - 0.04), (v * 0.25 + lean, top - 0.14), (v * 0.31, 1.02),
             (v * 0.25, 1.02)] for v in (-1.0, 1.0)]  # fmt: skip
    dim = brighter(coat, 0.75)
    parts += [(metal, bar), (coat, back), (dim, arms[0]), (dim, arms[1])]
    parts.extend(_head(thing, lean, top + 0.15, 0.125))
    return parts


def _rider_aside(canvas: Canvas, thing: Thing) -> list[Part]:
    """Two wheels, frame, bent back, arms and a turning leg, across the street."""
    way = 1.0 if thing.heading > 0 else -1.0
    turn = 6.28 * (thing.phase + 0.31 * canvas.view.z_m)
    metal = HAIRS[thing.variant % 4]
    pedal = 0.17 * math.cos(turn), 0.30 + 0.17 * math.sin(turn)
    knee = 0.34 + 0.4 * pedal[0], 0.72 + 0.5 * (pedal[1] - 0.30)
    strips: list[tuple[Rgb, float, Point, Point]] = [
        (metal, 0.03, (-0.52, 0.34), (0.0, 0.30)),
        (metal, 0.03, (0.0, 0.30), (0.40, 0.82)),
        (metal, 0.03, (-0.16, 0.88), (0.40, 0.82)),
        (metal, 0.03, (0.0, 0.30), (-0.18, 0.92)),
        (metal, 0.03, (0.52, 0.34), (0.40, 1.04)),
        (thing.accent, 0.075, (-0.18, 0.98), knee),
        (thing.accent, 0.06, knee, pedal),
        (thing.colour, 0.14, (-0.16, 0.95), (0.14, 1.42)),
        (thing.colour, 0.05, (0.16, 1.36), (0.44, 1.04)),
    ]
    parts: list[Part] = [(DARK, _ring(way * u, 0.34)) for u in (-0.52, 0.52)]
    parts += [(colour, _limb(a, b, wide, way)) for colour, wide, a, b in strips]
    parts.extend(_head(thing, way * 0.22, 1.58, 0.125))
    return parts


def _ring(u: float, radius: float) -> list[Point]:
    """Return a tyre: outer circle, then inner circle back, leaving the spokes see-through."""
    turns = [2 * math.pi * i / 12 for i in range(13)]
    outer = [(u + radius * math.cos(a), radius + radius * math.sin(a)) for a in turns]
    small = 0.74 * radius
    inner = [(u + small * math.cos(a), radius + small * math.sin(a)) for a in reversed(turns)]
    return outer + inner


def _limb(a: Point, b: Point, half_m: float, way: float) -> list[Point]:
    """Return a bar from a to b, `half_m` to each side of its centre line; way = -1 mirrors it."""
    along = b[0] - a[0], b[1] - a[1]
    scale = half_m / math.hypot(*along)
    u, y = -along[1] * scale, along[0] * scale
    corners = [(a[0] + u, a[1] + y), (b[0] + u, b[1] + y)]
    corners += [(b[0] - u, b[1] - y), (a[0] - u, a[1] - y)]
    return [(way * c, d) for c, d in corners]


def _foot_shadow(canvas: Canvas, thing: Thing, radius: float) -> None:
    corners = [canvas.place(thing.s_m + radius * a, thing.z_m + radius * b) for a, b in DISC]
    canvas.shadow(corners, 120)
