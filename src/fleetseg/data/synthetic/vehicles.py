"""Draw cars, vans and buses as boxes with bodies, panes, wheels, lamps and shadows."""

from __future__ import annotations

import math

from fleetseg.data.synthetic import materials as m
from fleetseg.data.synthetic.canvas import Canvas, Rgb, Style, brighter
from fleetseg.data.synthetic.cities import City
from fleetseg.data.synthetic.street import Thing

Point = tuple[float, float]

# Side views as (share of the length from the rear, share of the height): body, then cabin.
BODIES: tuple[tuple[Point, ...], ...] = (
    ((0.0, 0.2), (0.0, 0.64), (0.72, 0.64), (0.98, 0.54), (1.0, 0.2)),
    ((0.0, 0.2), (0.0, 0.66), (0.18, 0.68), (0.70, 0.66), (0.98, 0.56), (1.0, 0.2)),
    ((0.0, 0.2), (0.0, 0.60), (0.72, 0.60), (0.98, 0.52), (1.0, 0.2)),
    ((0.0, 0.15), (0.0, 0.52), (0.82, 0.52), (0.99, 0.40), (1.0, 0.15)),
    ((0.0, 0.12), (0.0, 0.45), (1.0, 0.45), (1.0, 0.12)),
)
# (rear foot, rear top, front top, front foot) of the cabin along the length.
CABINS: tuple[tuple[float, float, float, float], ...] = (
    (0.0, 0.10, 0.58, 0.74),
    (0.16, 0.30, 0.60, 0.74),
    (0.0, 0.06, 0.62, 0.74),
    (0.0, 0.01, 0.72, 0.84),
    (0.0, 0.0, 0.99, 1.0),
)
DARK: Rgb = (0.05, 0.05, 0.06)
PANE: Rgb = (0.12, 0.15, 0.18)


class _Box:
    """Places points of a vehicle: share along from its rear, share across, metres up."""

    def __init__(self, canvas: Canvas, thing: Thing) -> None:
        rear = thing.z_m if thing.heading > 0 else thing.z_m + thing.length_m
        self.near = canvas.place(thing.s_m, rear)
        front = canvas.place(thing.s_m, rear + thing.heading * thing.length_m)
        self.along = front[0] - self.near[0], front[1] - self.near[1]
        half = thing.width_m / 2 / thing.length_m
        self.side = self.along[1] * half, -self.along[0] * half  # to the vehicle's right

    def at(self, u: float, v: float, y: float) -> tuple[float, float, float]:
        """Return the camera coordinates of a point; v = -1 left side, +1 right side."""
        return (
            self.near[0] + u * self.along[0] + v * self.side[0],
            y,
            self.near[1] + u * self.along[1] + v * self.side[1],
        )


def car(canvas: Canvas, thing: Thing, city: City, lit: bool) -> None:
    """Draw a vehicle: shadow, top faces, the visible end, the visible side."""
    box = _Box(canvas, thing)
    ends = box.at(0, 0, 0)[2], box.at(1, 0, 0)[2]
    if min(ends) < 1.2:
        return
    corners = [
        box.at(u, v, 0.0) for u, v in ((-0.03, -1.1), (1.03, -1.1), (1.03, 1.1), (-0.03, 1.1))
    ]
    canvas.shadow([(x, z) for x, _, z in corners], 190)
    rear_seen = ends[0] < ends[1]
    _top_faces(canvas, box, thing, rear_seen)
    toward = [v for v in (-1.0, 1.0) if _side_seen(box, v)]
    for v in toward:
        _side(canvas, box, thing, v)
    _end(canvas, box, thing, rear_seen, lit and thing.phase > 0.0)


def _side_seen(box: _Box, v: float) -> bool:
    x, _, z = box.at(0.5, v, 0.0)
    return (x * box.side[0] + z * box.side[1]) * v < 0


def _top_faces(canvas: Canvas, box: _Box, thing: Thing, rear_seen: bool) -> None:
    """Draw bonnet, roof and the slanted panes, from far to near."""
    height = thing.height_m
    belt = BODIES[thing.variant][1][1] * height
    foot, top, front_top, front_foot = CABINS[thing.variant]
    narrow = 0.84 if thing.variant < 3 else 0.96
    nose = BODIES[thing.variant][-2]
    body = Style(m.CAR, m.BODY, thing.colour)
    pane = Style(m.CAR, m.GLASS, PANE)
    faces = [
        ((nose[0], 0.96, nose[1] * height), (front_foot, 0.96, belt), body, 1.1),
        ((front_foot, 0.92, belt), (front_top, narrow, height), pane, 1.0),
        ((front_top, narrow, height), (top, narrow, height), body, 1.15),
        ((top, narrow, height), (foot, 0.92, belt), pane, 1.0),
    ]
    if not rear_seen:
        faces.reverse()
    for (u0, v0, y0), (u1, v1, y1), style, gain in faces:
        if style is pane and (u1 < 0.5) != rear_seen:
            continue  # the pane at the far end faces away
        quad = [box.at(u0, -v0, y0), box.at(u1, -v1, y1), box.at(u1, v1, y1), box.at(u0, v0, y0)]
        if style is pane:
            canvas.solid(quad, body)
            quad = [box.at(u0, -v0 * 0.86, y0), box.at(u1, -v1 * 0.86, y1),
                    box.at(u1, v1 * 0.86, y1 - 0.05), box.at(u0, v0 * 0.86, y0 - 0.05)]  # fmt: skip
        canvas.solid(quad, style, gain)


def _side(canvas: Canvas, box: _Box, thing: Thing, v: float) -> None:
    height = thing.height_m
    profile = BODIES[thing.variant]
    shade = 0.86
    body = Style(m.CAR, m.BODY, thing.colour)
    canvas.solid([box.at(u, v, y * height) for u, y in profile], body, shade)
    belt = profile[1][1] * height
    foot, top, front_top, front_foot = CABINS[thing.variant]
    narrow = (0.84 if thing.variant < 3 else 0.96) * v
    cabin = [(foot, v * 0.98, belt), (top, narrow, height)]
    cabin += [(front_top, narrow, height), (front_foot, v * 0.98, belt)]
    canvas.solid([box.at(*point) for point in cabin], body, shade)
    pane = Style(m.CAR, m.GLASS, PANE)
    low, high = belt + 0.04, height - 0.12
    split = (0.40, 0.44, 0.38, 0.66, 0.5)[thing.variant]
    starts = (foot + 0.06, split + 0.02)
    tops = ((top + 0.03, split - 0.02), (split + 0.02, front_top - 0.01))
    for number, (start, (high_a, high_b)) in enumerate(zip(starts, tops, strict=True)):
        if thing.variant == 3 and number == 0:
            continue  # a van has no side windows
        stop = split - 0.02 if number == 0 else front_foot - 0.05
        window = [(start, v, low), (high_a, narrow * 1.02, high)]
        window += [(high_b, narrow * 1.02, high), (stop, v, low)]
        canvas.solid([box.at(*point) for point in window], pane, 0.9)
    if box.near[1] < 60:
        _wheels(canvas, box, thing, v)


def _wheels(canvas: Canvas, box: _Box, thing: Thing, v: float) -> None:
    radius = 0.46 if thing.variant == 4 else 0.33
    for u in (0.19, 0.81):
        for share, colour in ((1.0, DARK), (0.55, (0.42, 0.42, 0.44))):
            ring = []
            for i in range(10):
                angle = 2 * math.pi * i / 10
                along = u + share * radius * math.cos(angle) / thing.length_m
                ring.append(box.at(along, v * 1.01, radius + share * radius * math.sin(angle)))
            canvas.solid(ring, Style(m.CAR, m.PLAIN, colour))


def _end(canvas: Canvas, box: _Box, thing: Thing, rear_seen: bool, lit: bool) -> None:
    """Draw the rear or the front: panel, bumper, wheels, lamps and number plate."""
    height = thing.height_m
    profile = BODIES[thing.variant]
    u = 0.0 if rear_seen else 1.0
    top = (profile[1] if rear_seen else profile[-2])[1] * height
    low = profile[0][1] * height

    def quad(v0: float, v1: float, y0: float, y1: float, style: Style, gain: float = 1.0) -> None:
        points = [box.at(u, v0, y0), box.at(u, v0, y1), box.at(u, v1, y1), box.at(u, v1, y0)]
        canvas.solid(points, style, gain)

    tyre = Style(m.CAR, m.PLAIN, DARK)
    quad(-0.95, -0.68, 0.0, low + 0.1, tyre)
    quad(0.68, 0.95, 0.0, low + 0.1, tyre)
    quad(-1.0, 1.0, low, top, Style(m.CAR, m.BODY, thing.colour), 0.95)
    quad(-0.98, 0.98, low, low + 0.14 * height, tyre, 1.4)
    if box.at(u, 0, 0)[2] > 75:
        return
    if thing.variant == 4 or (thing.variant == 3 and rear_seen):  # a window in the upright end
        quad(-0.94, 0.94, top, height, Style(m.CAR, m.BODY, thing.colour), 0.95)
        quad(-0.8, 0.8, top + 0.08, height - 0.25, Style(m.CAR, m.GLASS, PANE))
    plate = Style(m.CAR, m.PLAIN, (0.86, 0.84, 0.70))
    quad(-0.26, 0.26, low + 0.20 * height, low + 0.27 * height, plate)
    if not rear_seen:
        quad(-0.5, 0.5, top - 0.22, top - 0.08, Style(m.CAR, m.PLAIN, DARK))
    colour: Rgb = (0.62, 0.06, 0.05) if rear_seen else (0.86, 0.87, 0.84)
    if lit:
        colour = (1.0, 0.12, 0.08) if rear_seen else (1.0, 0.96, 0.84)
    lamp = Style(m.CAR, m.EMIT if lit else m.PLAIN, colour)
    for v in (-0.82, 0.82):
        quad(v - 0.14, v + 0.14, top - 0.28, top - 0.10, lamp)
        if lit:
            x, y, z = box.at(u, v, top - 0.2)
            gain, radius = (0.5, 0.45) if rear_seen else (1.0, 0.9)
            canvas.glow(x, y, z, brighter(colour, gain), radius)
