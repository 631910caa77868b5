"""Draw houses: end wall, roof, chimney, front with windows, shop or door."""

from __future__ import annotations

from fleetseg.data.synthetic import materials as m
from fleetseg.data.synthetic.canvas import Canvas, Ground, Style, brighter
from fleetseg.data.synthetic.cities import City
from fleetseg.data.synthetic.street import Thing

WALLS = (m.PLASTER, m.BRICK, m.TOWER)
"""Indexed by a city's wall_grain."""


def house(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw the end wall, the roof and the front with its windows."""
    side = 1 if thing.s_m > 0 else -1
    near, far = thing.z_m, thing.z_m + thing.length_m
    front = canvas.place(thing.s_m, near), canvas.place(thing.s_m, far)
    back = canvas.place(thing.s_m + side * thing.width_m, near)
    wall = WALLS[int(city.wall_grain)]
    height, deep = thing.height_m, thing.width_m
    glass = (0.16 + 0.1 * thing.phase, 0.20 + 0.08 * thing.phase, 0.24)
    pitch, share_w, share_h = city.window
    pitch *= 0.85 + 0.3 * thing.phase
    floor_m = height / max(1, round(height / 3.1))
    grain = (pitch, floor_m, share_w, share_h)
    gabled = thing.variant & 1
    end = [(0.0, 0.0), (0.0, height), (deep, height), (deep, 0.0)]
    rise = 0.26 * deep + 1.2 * thing.phase
    if gabled:
        end.insert(2, (deep / 2, height + rise))
    blank = (pitch * 2.2, floor_m, share_w * 0.45, share_h)
    canvas.panel(front[0], back, end, Style(m.BUILDING, wall, thing.colour, glass, blank))
    if gabled:
        _roof(canvas, thing, side, rise)
    length = thing.length_m
    sheet = [(0.0, 0.0), (0.0, height), (length, height), (length, 0.0)]
    canvas.panel(*front, sheet, Style(m.BUILDING, wall, thing.colour, glass, grain))
    if thing.variant & 2:
        _shop(canvas, thing, front)
    elif city.lanes == 1:
        _door(canvas, thing, front, length)
    if not gabled:  # a cornice
        edge = [(0.0, height - 0.1), (0.0, height + 0.5), (length, height + 0.5)]
        edge.append((length, height - 0.1))
        canvas.panel(*front, edge, Style(m.BUILDING, m.PLAIN, brighter(thing.colour, 0.8)))


def _roof(canvas: Canvas, thing: Thing, side: int, rise: float) -> None:
    eave, ridge = thing.s_m - side * 0.35, thing.s_m + side * thing.width_m / 2
    near, far = thing.z_m - 0.2, thing.z_m + thing.length_m + 0.2
    low, top = thing.height_m - 0.15, thing.height_m + rise
    near = max(near, canvas.view.z_m + 1.5)
    if near >= far:
        return
    corners = [(eave, low, near), (ridge, top, near), (ridge, top, far), (eave, low, far)]
    points = []
    for s, y, z in corners:
        x, depth = canvas.place(s, z)
        points.append((x, y, depth))
    sunny = 1.0 + 0.5 * canvas.contrast * (-side) * canvas.sun_xz[0]
    canvas.solid(points, Style(m.BUILDING, m.TILES, thing.accent), sunny)
    if thing.phase > 0.4:  # a chimney
        z = thing.z_m + thing.length_m * (0.2 + 0.6 * thing.phase)
        x, depth = canvas.place(ridge, z)
        stack = [(-0.4, top - 0.8), (-0.4, top + 1.0), (0.4, top + 1.0), (0.4, top - 0.8)]
        canvas.board(x, depth, stack, Style(m.BUILDING, m.PLAIN, brighter(thing.colour, 0.8)))


def _shop(canvas: Canvas, thing: Thing, front: tuple[Ground, Ground]) -> None:
    length = thing.length_m
    dark = (0.20, 0.22, 0.24)
    window = [(0.4, 0.4), (0.4, 2.7), (length - 0.4, 2.7), (length - 0.4, 0.4)]
    canvas.panel(*front, window, Style(m.BUILDING, m.SHOP, dark, (0.7, 0.6, 0.4)))
    hue = thing.phase * 6.0
    band = tuple(0.25 + 0.5 * max(0.0, min(1.0, abs((hue + k) % 6 - 3) - 1)) for k in (0, 2, 4))
    sill = [(0.2, 2.6), (0.2, 3.3), (length - 0.2, 3.3), (length - 0.2, 2.6)]
    colour = (band[0], band[1], band[2])
    canvas.panel(*front, sill, Style(m.BUILDING, m.PLAIN, colour))


def _door(
    canvas: Canvas,
    thing: Thing,
    front: tuple[Ground, Ground],
    length: float,
) -> None:
    u = length * (0.15 + 0.6 * thing.phase)
    colour = (0.2 + 0.3 * thing.phase, 0.22, 0.42 - 0.3 * thing.phase)
    door = [(u, 0.0), (u, 2.15), (u + 1.0, 2.15), (u + 1.0, 0.0)]
    canvas.panel(*front, door, Style(m.BUILDING, m.PLAIN, colour))
