"""The heartbeat interval of a working vehicle, which both sides derive from the cohort's size."""

from __future__ import annotations

QUICK_S = 1.0
"""Default seconds between two heartbeats."""
_FROM, _LONGEST_S = 20, 30.0  # up to this many vehicles, one heartbeat a second each


def beat_every_s(num_vehicles: int) -> float:
    """Return the seconds between two heartbeats of each of `num_vehicles` vehicles.

    >>> beat_every_s(4), beat_every_s(32), beat_every_s(5000)
    (1.0, 1.6, 30.0)
    """
    return max(QUICK_S, min(num_vehicles / _FROM, _LONGEST_S))
