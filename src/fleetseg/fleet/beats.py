"""How often a vehicle at work is to be heard, which both sides know from how many were asked."""

from __future__ import annotations

QUICK_S = 1.0
"""Seconds between two signs of life where nothing else has been said."""
_FROM, _LONGEST_S = 20, 30.0  # vehicles that each may be heard once a second


def beat_every_s(num_vehicles: int) -> float:
    """Return the seconds between two signs of life of each of so many vehicles.

    >>> beat_every_s(4), beat_every_s(32), beat_every_s(5000)
    (1.0, 1.6, 30.0)
    """
    return max(QUICK_S, min(num_vehicles / _FROM, _LONGEST_S))
