"""The appearance of vehicles' images, furthest from the mean vehicle first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fleetseg.report.figures import LookFigures
from fleetseg.runs.vehicle_looks import Look


def look_figures(looks: Sequence[Look]) -> tuple[LookFigures, ...]:
    """Sort by the distance from the mean vehicle; in colour where all colours are known."""
    if not looks:
        return ()
    in_colour = all(look.colour_3 for look in looks)
    points = [look.colour_3 if in_colour else (look.brightness,) for look in looks]
    mean = [math.fsum(values) / len(points) for values in zip(*points, strict=True)]
    far = sorted(zip(looks, points, strict=True), key=lambda each: -math.dist(each[1], mean))
    return tuple(
        LookFigures(look.client, look.brightness, _hex(look.colour_3) if look.colour_3 else "")
        for look, _ in far
    )


def _hex(colour_3: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * min(1.0, max(0.0, value))):02x}" for value in colour_3)


def looks_of(looks: Sequence[Look]) -> str:
    """Say which images were examined."""
    if not looks:
        return ""
    most = max(look.images for look in looks)
    reported = sum(look.images == 0 for look in looks)
    if reported == len(looks):
        return "all images, as vehicles reported for the method"
    some = f"up to {most} training images of each, which this machine holds"
    return some + ("; some vehicles reported theirs" if reported else "")
