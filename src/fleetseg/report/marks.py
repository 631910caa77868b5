"""Positions of marks on their scales, in percent of a plot's width or height."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` with its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> str:
        """Return the position of a value, in percent from the left, with two digits."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}"

    def up(self, value: float) -> str:
        """Return the position of a value, in percent from the top."""
        return f"{100 * (self.high - value) / (self.high - self.low):.2f}"

    def text(self, value: float) -> str:
        """Format a tick.

        >>> axis([0.2, 0.7]).text(0.4), axis([0.0, 180.0]).text(50.0)
        ('.4', '50')
        """
        if value == 0:
            return "0"
        text = f"{value:.10g}"
        return text[1:] if text.startswith("0.") else text


def axis(values: Iterable[float], *, zero: bool = False, ticks: int = 5) -> Axis:
    """Fit a scale with round ticks to values.

    >>> axis([0.42, 0.69]).ticks
    (0.4, 0.5, 0.6, 0.7)
    """
    known = [value for value in values if not math.isnan(value)]
    low = min([*known, *([0.0] if zero else [])], default=0.0)
    high = max(known, default=1.0)
    if high - low < 1e-9:
        low, high = (0.0, high) if high > 0 else (low, low + 1.0)
    rough = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in _STEPS if power * each >= rough - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    found = tuple(round(step * k, 10) for k in range(first, last + 1))
    return Axis(found[0], found[-1], found)


def line(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Return an SVG path through points."""
    return "".join(f"{'L' if k else 'M'}{x.at(a)} {y.up(b)}" for k, (a, b) in enumerate(points))


def dots(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Return an SVG path of round points; the stroke is their size."""
    return "".join(f"M{x.at(a)} {y.up(b)}h0" for a, b in points)


def heat(iou: float | None) -> int:
    """Return the tint of a cell, 0 to 100: none above 0.86, full below 0.13.

    >>> heat(0.9), heat(0.495), heat(0.1), heat(None)
    (0, 50, 100, 0)
    """
    return 0 if iou is None else round(min(1.0, max(0.0, (0.86 - iou) / 0.73)) * 100)


def confused(share: float) -> int:
    """Return the tint of a share of wrong pixels: full at a third of a class, 0 below 1 %."""
    return 0 if share < 0.005 else round(min(1.0, math.sqrt(share / 0.33)) * 100)
