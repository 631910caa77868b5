"""When a vehicle is given up: silence, no progress, time; and when none of these is its fault.

Times are by the dispatcher's clock, which stops while this process is stopped, and vehicles are
judged only once every message that has arrived has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleetseg.config import FleetConfig
from fleetseg.federation.messages import Failure
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.turns import TurnTimes

_JOB_S = 3.0  # the job sends something once a second; while it does not, no vehicle is judged
_UNREAD_S = 1.0


@dataclass
class Pending:
    """A vehicle that was asked and has not answered."""

    site: str
    task: str = ""
    asked_s: float = 0.0
    fetched: bool = False
    limit_s: float = float("inf")  # how long its turn may take


class Patience:
    """Judges vehicles that have not answered; tracks since when no vehicle at all can be heard."""

    def __init__(
        self,
        settings: FleetConfig,
        dispatcher: TaskDispatcher,
        returned: Callable[[], frozenset[str]],
        notify: Callable[[str], None],
    ) -> None:
        self._settings, self._dispatcher = settings, dispatcher
        self._returned, self._notify = returned, notify
        self.cut_off_s: float | None = None
        self.turns = TurnTimes(settings.first_turn_s)

    @property
    def stalled_s(self) -> float:
        """How long a site may report no progress; its own supervisor acts earlier."""
        return self._settings.stalled_s + self._settings.silent_s

    def given_up(self, waiting: Mapping[str, Pending]) -> list[tuple[str, Failure]]:
        """Return the vehicles that are given up, each with the reason."""
        dispatcher, now_s = self._dispatcher, self._dispatcher.clock()
        if dispatcher.job_silent_s() > _JOB_S or dispatcher.behind_s() > _UNREAD_S:
            return []  # what would clear them may still be unread
        if self.is_cut_off():
            for pending in waiting.values():
                pending.asked_s = now_s  # their time starts again with the first heartbeat
            if now_s - (self.cut_off_s or now_s) <= self._settings.wait_s:
                return []
        judged = ((v, self._why(v, pending, now_s)) for v, pending in waiting.items())
        return [(vehicle, failure) for vehicle, failure in judged if failure is not None]

    def is_cut_off(self) -> bool:
        """Return whether no vehicle can be heard: then the segment or this side is at fault.

        If the vehicles can be reached nevertheless, it is the segment, and a new one replaces it.
        """
        dispatcher = self._dispatcher
        if not dispatcher.job:
            return False
        if not dispatcher.all_silent(self._settings.silent_s):
            self.cut_off_s = None
            return False
        if self._returned():
            dispatcher.drop()
        if self.cut_off_s is None:
            self.cut_off_s = dispatcher.clock()
            self._notify("no vehicle can be heard; waiting for the network")
        return True

    def abandon(self, pending: Pending) -> None:
        """Note that a vehicle may still be working on an abandoned task."""
        with self._dispatcher.changed:
            site = self._dispatcher.sites.get(pending.site)
            if site is not None and pending.fetched:
                site.overdue = pending.task

    def _why(self, vehicle: str, pending: Pending, now_s: float) -> Failure | None:
        if self._dispatcher.silent_s(pending.site) > self._settings.silent_s:
            return Failure(vehicle, "lost", "silent", "no heartbeat")
        if self._dispatcher.stalled_s(pending.site) > self.stalled_s:
            return Failure(vehicle, "lost", "stalled", "heartbeats, but no progress")
        if self._ignores(pending, now_s):
            reason = "dropped" if pending.fetched else "not-fetched"
            return Failure(vehicle, "lost", reason, "idle, but no answer")
        if now_s - pending.asked_s > pending.limit_s:
            detail = (
                f"no answer in {pending.limit_s:.0f} s; federation.deadline_s sets another limit"
            )
            return Failure(vehicle, "late", "deadline", detail)
        return None

    def _ignores(self, pending: Pending, now_s: float) -> bool:
        site = self._dispatcher.sites.get(pending.site)
        idle = site is not None and not site.busy
        return idle and now_s - pending.asked_s > self._settings.fetch_s
