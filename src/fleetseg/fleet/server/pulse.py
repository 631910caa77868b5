"""Detects a hanging server loop, which neither ends nor reports an error and looks busy.

While it waits for vehicles, the loop iterates several times a second. During its own work
(aggregating the last update, scoring on its own frames) it gives no sign until that is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WAITING_S = 60.0
"""Longest time between two iterations while the loop waits for vehicles."""
WORKING_S = 3600.0
"""Longest time for the server's own work between two requests, such as scoring on its frames."""


class Pulse:
    """When the loop last gave a sign, and how long it may be silent after that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock(), WORKING_S  # one value: other threads read it

    def waiting(self) -> None:
        """Note an iteration while the loop waits for vehicles."""
        self._last = self._clock(), WAITING_S

    def working(self) -> None:
        """Note that the server starts its own work."""
        self._last = self._clock(), WORKING_S

    def stalled_s(self) -> float:
        """Return the seconds for which the loop has hung; 0 if it does not hang.

        >>> times = iter([0.0, 10.0, 69.0, 71.0])
        >>> pulse = Pulse(lambda: next(times))
        >>> pulse.waiting()
        >>> pulse.stalled_s(), pulse.stalled_s()
        (0.0, 61.0)
        """
        at_s, patience_s = self._last
        silent_s = self._clock() - at_s
        return silent_s if silent_s > patience_s else 0.0
