"""systemd's watchdog: what ends it starts again by itself, what hangs only if it is told nothing.

A message is a datagram to the socket in $NOTIFY_SOCKET; where there is none, nothing happens. See
sd_notify(3), https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from fleetseg.fleet.threads import start_thread

READY = "READY=1"
_ALIVE = "WATCHDOG=1"
_PARTS = 4  # of the time that the watchdog allows between two signs of life


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send the service manager a message; says whether there is one, and it was sent."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # Linux's abstract names
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)  # a manager that is busy must not stop who tells it something
        sender.sendto(state.encode(), address)
        return True
    return False


def patience_s(environment: Mapping[str, str] = os.environ) -> float:
    """Return how long the watchdog waits for a sign of life of this process; 0 = there is none."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0.0, int(environment.get("WATCHDOG_USEC", "0")) / 1e6)
    except ValueError:
        return 0.0


class Watchdog:
    """Gives signs of life, no more of them than are needed; for loops that turn often."""

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environment, self._clock = environment, clock
        self._every_s = patience_s(environment) / _PARTS
        self._next_s = float("-inf")

    def alive(self) -> None:
        """Say that the loop has come round again."""
        now_s = self._clock()
        if self._every_s > 0 and now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            notify(_ALIVE, self._environment)


@contextmanager
def following_this_thread(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Be ready, and give signs of life for as long as this thread, which runs the block, moves.

    That is seen by the processor time it uses: whether it trains, scores, or looks every tenth of a
    second whether somebody has answered, it uses some, and none when it hangs.
    """
    notify(READY, environment)
    every_s = patience_s(environment) / _PARTS
    if every_s <= 0:
        yield
        return
    clock_id, over = time.pthread_getcpuclockid(threading.get_ident()), threading.Event()

    def follow() -> None:
        used_s = -1.0
        while True:
            before_s, used_s = used_s, time.clock_gettime(clock_id)
            if used_s > before_s:
                notify(_ALIVE, environment)
            if over.wait(every_s):
                return

    thread = start_thread(follow, "fleetseg-watchdog")
    try:
        yield
    finally:
        over.set()
        thread.join()
