"""Number formats of the page: digits, signs, units, and lists of names."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = "–"
_NARROW = "\u202f"  # a thin non-breaking space, before a percent sign
_NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
)  # fmt: skip


def is_known(value: float | None) -> bool:
    """Say whether there is a figure."""
    return value is not None and not math.isnan(value)


def score(value: float | None) -> str:
    """Format an IoU with three digits.

    >>> score(0.6764), score(None), score(float("nan"))
    ('0.676', '–', '–')
    """
    return f"{value:.3f}" if value is not None and is_known(value) else NOTHING


def cell(value: float | None) -> str:
    """Format an IoU with two digits and no leading zero, for narrow cells.

    >>> cell(0.064), cell(1.0), cell(None)
    ('.06', '1.0', '–')
    """
    if value is None or not is_known(value):
        return NOTHING
    return "1.0" if value >= 0.995 else f"{value:.2f}"[1:]


def points(difference: float | None) -> str:
    """Format a difference of two ratios in points, with its sign.

    >>> points(-0.0273), points(0.0041), points(-0.0001)
    ('−2.7', '+0.4', '±0.0')
    """
    if difference is None or not is_known(difference):
        return NOTHING
    text = f"{abs(100 * difference):.1f}"
    if float(text) == 0:
        return f"±{text}"
    return ("+" if difference > 0 else "−") + text


def between(low: float, high: float) -> str:
    """Format an interval of IoUs.

    >>> between(0.4123, 0.4671)
    '0.412 to 0.467'
    """
    return f"{score(low)} to {score(high)}"


def points_between(low: float, high: float) -> str:
    """Format an interval of differences in points.

    >>> points_between(-0.031, 0.004)
    '−3.1 to +0.4'
    """
    return f"{points(low)} to {points(high)}"


def distance(difference: float) -> str:
    """Format the distance of two ratios in points, without a sign.

    >>> distance(-0.0273), distance(0.01), distance(0.252)
    ('2.7 points', '1.0 point', '25 points')
    """
    apart = abs(100 * difference)
    text = f"{apart:.1f}" if apart < 9.95 else f"{apart:.0f}"
    return f"{text} point" + ("" if float(text) == 1 else "s")


def percent(share: float | None, digits: int = 0) -> str:
    """Format a fraction in percent.

    >>> percent(0.0851, 1) == "8.5\u202f%"
    True
    """
    if share is None or not is_known(share):
        return NOTHING
    return f"{100 * share:.{digits}f}{_NARROW}%"


def number(value: int) -> str:
    """Format a small number as a word, and others in digits.

    >>> number(9), number(40), number(12_000)
    ('nine', '40', '12,000')
    """
    return _NUMBERS[value] if 0 <= value < len(_NUMBERS) else f"{value:,}"


def counted(value: int, what: str) -> str:
    """Format a number with its noun.

    >>> counted(1, "vehicle"), counted(9, "vehicle"), counted(101, "frame")
    ('one vehicle', 'nine vehicles', '101 frames')
    """
    return f"{number(value)} {what}" + ("" if value == 1 else "s")


def capital(text: str) -> str:
    """Capitalise the first letter.

    >>> capital("nine vehicles")
    'Nine vehicles'
    """
    return text[:1].upper() + text[1:]


def series(names: Sequence[str], limit: int = 4) -> str:
    """Join names as in a sentence, up to a limit.

    >>> series(["pole"]), series(["a", "b", "c"]), series(list("abcdef"), 3)
    ('pole', 'a, b and c', 'a, b, c and three more')
    """
    shown = list(names[:limit])
    rest = len(names) - len(shown)
    if rest:
        return f"{', '.join(shown)} and {number(rest)} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def duration(seconds: float) -> str:
    """Format a duration, roughly.

    >>> duration(19.2), duration(2700), duration(12_000)
    ('19 s', '45 min', '3 h 20 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Drop the common prefix of all names, up to a hyphen or a slash, unless only numbers remain.

    >>> short_names(["camvid-0001TP-1", "camvid-0016E5-2"])
    {'camvid-0001TP-1': '0001TP-1', 'camvid-0016E5-2': '0016E5-2'}
    >>> short_names(["car-1", "car-2"])
    {'car-1': 'car-1', 'car-2': 'car-2'}
    """
    if len(names) < 2:
        return {name: name for name in names}
    first, last = min(names), max(names)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    cut = max(first.rfind("-", 0, same), first.rfind("/", 0, same)) + 1
    if all(name[cut:].isdigit() for name in names):
        cut = 0
    return {name: name[cut:] for name in names}
