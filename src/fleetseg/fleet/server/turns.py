"""How long a vehicle may take for a task without a deadline: five times the usual.

A turn lasts from when a vehicle has fetched a task to its reply. The limit is a multiple of the
median of past turns at that task, of all vehicles or of this one, whichever is longer: a vehicle
with ten times the images is not late because of that. Before its first turn, a vehicle is not
measured by the times of others.
"""

from __future__ import annotations

from collections import deque
from statistics import median

_TIMES = 5.0  # multiple of the median
LEAST_S = 120.0  # least limit, for a busy machine or an unsteady link
_OF_ALL, _OF_ONE = 256, 8  # turns remembered of all vehicles, of one vehicle


class TurnTimes:
    """Measured turns of one run, by task; a limit is never above `first_s`."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s  # for a vehicle's first turn at a task
        self._took_s: dict[tuple[str, str], deque[float]] = {}  # (task, vehicle or "" = all)
        self._median_s: dict[tuple[str, str], float] = {}

    def add(self, task: str, vehicle: str, seconds: float) -> None:
        """Note how long a vehicle took for a reply that is not a failure."""
        for key, most in (((task, ""), _OF_ALL), ((task, vehicle), _OF_ONE)):
            took_s = self._took_s.setdefault(key, deque(maxlen=most))
            took_s.append(max(0.0, seconds))
            self._median_s[key] = median(took_s)

    def limit_s(self, task: str, vehicle: str) -> float:
        """Return how long a vehicle may take.

        >>> times = TurnTimes(first_s=3600.0)
        >>> times.add("train", "car-1", 100.0)
        >>> times.limit_s("train", "car-1"), times.limit_s("train", "car-2")
        (500.0, 3600.0)
        """
        own_s = self._median_s.get((task, vehicle))
        if own_s is None:
            return self._first_s
        longest_s = max(own_s, self._median_s[task, ""])
        return min(max(LEAST_S, _TIMES * longest_s), self._first_s)
