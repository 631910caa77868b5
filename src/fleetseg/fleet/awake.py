"""A clock that stands still while its process does not run.

A server that was paused for 20 s (its machine moved, its memory was swapped out, SIGSTOP) has not
listened for 20 s: nobody was silent in that time, and nobody late. Whatever is judged by this clock
waits until the process has run for as long.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fleetseg.fleet.threads import start_thread

_BEAT_S = 0.25
MOST_S = 1.0
"""Longest step between two readings: more is time in which the process stood still."""


class AwakeClock:
    """Seconds that this process has run; many threads may read it, and one has to, all the time.

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
    """Read a clock often enough while the block lasts."""
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
