"""Whether a server's loop goes on: what hangs neither ends nor says so, and looks like one at work.

While it waits for vehicles, the loop turns several times a second. At its own work (folding the
last update, scoring on its own frames) it gives no sign until that is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WAITING_S = 60.0
"""Longest time between two turns of a loop that waits for vehicles."""
WORKING_S = 3600.0
"""Longest time for the server's own work between two requests, such as scoring on its frames."""


class Pulse:
    """When the loop last gave a sign, and for how long it may be silent from there."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock(), WORKING_S  # one value: other threads read it

    def waiting(self) -> None:
        """Note a turn of a loop that waits for vehicles."""
        self._last = self._clock(), WAITING_S

    def working(self) -> None:
        """Note that the server goes on with its own work."""
        self._last = self._clock(), WORKING_S

    def stalled_s(self) -> float:
        """Seconds for which the loop has hung; 0 while it goes on.

        >>> times = iter([0.0, 10.0, 69.0, 71.0])
        >>> pulse = Pulse(lambda: next(times))
        >>> pulse.waiting()
        >>> pulse.stalled_s(), pulse.stalled_s()
        (0.0, 61.0)
        """
        at_s, patience_s = self._last
        silent_s = self._clock() - at_s
        return silent_s if silent_s > patience_s else 0.0
