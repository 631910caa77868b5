"""A clock that stops while its process is not running.

A server that was paused for 20 s (its machine migrated, its memory was swapped out, SIGSTOP) did
not listen for 20 s, so no vehicle was silent or late in that time. Time-outs measured by this clock
count only the time for which the process has run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fleetseg.fleet.threads import start_thread

_BEAT_S = 0.25
MOST_S = 1.0
"""Longest step between two readings; anything beyond is time in which the process was stopped."""


class AwakeClock:
    """Seconds that this process has run; threads may share it, and one must read it continually.

    >>> times = iter([100.0, 100.5, 120.0])
    >>> clock = AwakeClock(lambda: next(times))
    >>> clock(), clock()
    (100.5, 101.5)
    """

    def __init__(self, source: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._reading = threading.Lock()
        self._seen_s = self._awake_s = source()

    def __call__(self) -> float:
        """Read the clock."""
        with self._reading:
            now_s = self._source()
            self._awake_s += min(max(0.0, now_s - self._seen_s), MOST_S)
            self._seen_s = now_s
            return self._awake_s


@contextmanager
def running(clock: AwakeClock) -> Iterator[None]:
    """Read a clock often enough for as long as the block runs."""
    over = threading.Event()

    def read() -> None:
        while not over.wait(_BEAT_S):
            clock()

    thread = start_thread(read, "fleetseg-clock")
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=5)
