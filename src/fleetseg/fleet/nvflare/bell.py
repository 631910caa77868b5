"""Notifications: a vehicle is told that a task is waiting, and need not poll ten times a second.

On the server, `Bell` tracks which sites have not yet fetched a task, and notifies them until they
have, as a notification may be lost like any other message. On a vehicle, `Waiting` sits between
NVFlare's loop and its requests for tasks: it sends one when notified, and otherwise now and then.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nvflare.private.defs import SpecialTaskName, TaskConstant

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0  # between two notifications of one site
_LOOK_S = 0.2  # between two checks whether the job is over


@dataclass
class _Call:
    """The tasks that a site has not fetched, and when it is notified next."""

    tasks: set[str] = field(default_factory=set)
    next_s: float = 0.0
    pause_s: float = _FIRST_PAUSE_S


class Bell:
    """Notifies sites that have a task to fetch; threads may share it.

    Args:
        ring: sends a notification to sites.
        clock: in seconds.
    """

    def __init__(
        self, ring: Callable[[list[str]], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ring, self._clock = ring, clock
        self._changed = threading.Condition()
        self._calls: dict[str, _Call] = {}
        self._listening: set[str] = set()
        self._over = False

    def listens(self, site: str) -> None:
        """Note that a site supports notifications; others poll."""
        if site not in self._listening:
            with self._changed:
                self._listening.add(site)
                self._changed.notify_all()

    def asked(self, task: str, sites: list[str]) -> None:
        """Notify sites at once, and again until they have fetched a task."""
        now_s = self._clock()
        with self._changed:
            for site in sites:
                call = self._calls.setdefault(site, _Call())
                call.tasks.add(task)
                call.next_s, call.pause_s = now_s, _FIRST_PAUSE_S
            self._changed.notify_all()

    def fetched(self, task: str, site: str) -> None:
        """Note that a site has fetched a task; if there are more, it asks again by itself."""
        with self._changed:
            self._forget(task, site)

    def cancelled(self, task: str) -> None:
        """Forget a task for all sites that have not fetched it."""
        with self._changed:
            for site in list(self._calls):
                self._forget(task, site)

    def due(self) -> list[str]:
        """Return the sites to notify now; their intervals grow each time."""
        now_s = self._clock()
        with self._changed:
            sites = [s for s, call in self._heard().items() if call.next_s <= now_s]
            for site in sites:
                call = self._calls[site]
                call.next_s = now_s + call.pause_s
                call.pause_s = min(2 * call.pause_s, _LONGEST_PAUSE_S)
        return sites

    def keep_ringing(self) -> None:
        """Send notifications until the end."""
        while not self._over:
            if sites := self.due():
                self._ring(sites)
            with self._changed:
                next_s = min((call.next_s for call in self._heard().values()), default=None)
                pause_s = None if next_s is None else next_s - self._clock()
                if not self._over and (pause_s is None or pause_s > 0):
                    self._changed.wait(pause_s)

    def end(self) -> None:
        """Stop sending notifications."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _heard(self) -> dict[str, _Call]:
        return {site: call for site, call in self._calls.items() if site in self._listening}

    def _forget(self, task: str, site: str) -> None:
        call = self._calls.get(site)
        if call is not None:
            call.tasks.discard(task)
            if not call.tasks:
                del self._calls[site]


class Waiting:
    """A vehicle's wait for a notification, which replaces NVFlare's sleep between two requests.

    Until its first task it polls as often as the server says: the server does not know yet that it
    supports notifications.
    """

    def __init__(self, heart_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._heart_s, self._clock = heart_s, clock
        self._rung = threading.Event()
        self._has_worked = False

    def ring(self) -> None:
        """Request a task now."""
        self._rung.set()

    def before(
        self, ask: Callable[[Any, Any], Any]
    ) -> Callable[[Any, Any], Any]:  # NVFlare's `get_task_assignment`
        """Wrap `ask`: wait for a reason before asking again; NVFlare handles failed requests."""

        def get_task(fl_ctx: Any, timeout: Any = None) -> Any:
            over = fl_ctx.get_run_abort_signal()
            while True:
                self._rung.clear()
                task = ask(fl_ctx, timeout)
                if task is None or task.name == SpecialTaskName.END_RUN:
                    return task
                idle = task.name == SpecialTaskName.TRY_AGAIN
                self._has_worked |= not idle
                if not idle or (over is not None and over.triggered):
                    task.data.set_header(TaskConstant.WAIT_TIME, 0.0)  # there may be more
                    return task
                if not self._has_worked:
                    return task
                self._wait(over)

        return get_task

    def _wait(self, over: Any) -> None:
        # Randomised, so that vehicles that were asked at once do not ask at once.
        until_s = self._clock() + self._heart_s * (0.75 + secrets.randbelow(500) / 1000)
        while not self._rung.wait(_LOOK_S) and self._clock() < until_s:
            if over is not None and over.triggered:
                return
