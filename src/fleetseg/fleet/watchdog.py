"""systemd's watchdog: processes that end are restarted anyway, hanging ones if heartbeats stop.

A message is a datagram to the socket in $NOTIFY_SOCKET; if that is not set, nothing happens. See
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
_PARTS = 4  # heartbeats per interval that the watchdog allows


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send the service manager a message; returns whether there is one and it was sent."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # Linux's abstract names
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)  # a busy manager must not block the sender
        sender.sendto(state.encode(), address)
        return True
    return False


def patience_s(environment: Mapping[str, str] = os.environ) -> float:
    """Return how long the watchdog waits for this process's heartbeat; 0 = no watchdog."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0.0, int(environment.get("WATCHDOG_USEC", "0")) / 1e6)
    except ValueError:
        return 0.0


class Watchdog:
    """Sends heartbeats, no more than needed; for loops that iterate often."""

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._environment, self._clock = environment, clock
        self._every_s = patience_s(environment) / _PARTS
        self._next_s = float("-inf")

    def alive(self) -> None:
        """Report that the loop has started another iteration."""
        now_s = self._clock()
        if self._every_s > 0 and now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            notify(_ALIVE, self._environment)


@contextmanager
def following_this_thread(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Report readiness, and send heartbeats while this thread, which runs the block, is active.

    Activity is measured by processor time: a thread that trains, scores, or checks for replies
    every tenth of a second uses some; a hanging one uses none.
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
