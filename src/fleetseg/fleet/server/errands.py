"""Requests to every site of a fleet, once and outside of runs: install a release, judge a model.

Sites may be away, busy, or lost while they work. A site that has not answered is asked again in the
next segment, and for a site that comes back a new segment is started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fleetseg.errors import EngineError
from fleetseg.fleet.server.dispatcher import TaskBatch, TaskDispatcher
from fleetseg.fleet.server.engine import Network
from fleetseg.fleet.sockets import Header

_TICK_S = 0.1
_START_S = 120.0  # for the server and the first segment
_IDLE_S = 30.0  # a site idle for this long without a reply has lost the task
_END_S = 30.0  # longest wait for a segment to end


@dataclass(frozen=True)
class Errand:
    """A request to every site."""

    header: Mapping[str, Any]
    payload: bytes = b""


@dataclass(frozen=True)
class Answered:
    """A site's reply, not checked yet."""

    site: str
    errand: str
    header: Header
    payload: bytes = b""


@dataclass
class Errands:
    """Asks each site for all errands, until all have answered or there is no more progress.

    `absent_s` is how long to wait for sites while none is working, `work_s` the longest that a site
    may work on an errand, `silent_s` how long a working site may go without a heartbeat.
    """

    dispatcher: TaskDispatcher
    network: Network
    errands: Mapping[str, Errand]
    sites: Collection[str]
    absent_s: float
    work_s: float = 3600.0
    silent_s: float = 15.0
    tell: Callable[[str], None] = lambda text: None
    clock: Callable[[], float] = time.monotonic
    missing: dict[str, str] = field(default_factory=dict)  # sites with errands left, and why

    def __post_init__(self) -> None:
        """Set up what is left to do."""
        self._left = {site: set(self.errands) for site in self.sites}
        self._why = dict.fromkeys(self.sites, "away")
        self._idle_since_s = self.clock()
        self._seen = 0  # segments
        self._told = ""

    def __iter__(self) -> Iterator[Answered]:
        """Yield replies as they arrive; `missing` is complete at the end.

        Raises:
            EngineError: there is no connection to the fleet at all.
        """
        last = 0
        while self._waits():
            if not self.dispatcher.job or self.dispatcher.segment == last:
                self._wait_for_segment(last)
                continue
            last = self.dispatcher.segment
            yield from self._in_segment(last)
        self.missing |= {site: self._why[site] for site, names in self._left.items() if names}

    def _waits(self) -> bool:
        if fatal := self.dispatcher.fatal or self.network.fatal():
            raise fatal
        for site in self.network.revoked() & set(self._left):
            self.missing[site] = "revoked"
            del self._left[site]
        if self.dispatcher.segment != self._seen:
            # From here on, the wait is for sites; until now it was for the server.
            self._seen, self._idle_since_s = self.dispatcher.segment, self.clock()
        patience_s = self.absent_s + (0.0 if self.dispatcher.segment else _START_S)
        idle_s = self.clock() - self._idle_since_s
        if not self.dispatcher.segment and idle_s > patience_s:
            trouble = self.network.trouble()
            raise EngineError(
                f"no vehicle has connected for {patience_s:.0f} s",
                got=trouble or None,
                cure="Start the vehicles (fleetseg client), or wait longer: --wait SECONDS",
            )
        return any(self._left.values()) and idle_s <= patience_s

    def _wait_for_segment(self, last: int) -> None:
        trouble = self.network.trouble()
        if trouble and trouble != self._told:
            self._told = trouble
            self.tell(trouble)
        with self.dispatcher.changed:
            if not self.dispatcher.job or self.dispatcher.segment == last:
                self.dispatcher.changed.wait(0.2)

    def _in_segment(self, segment: int) -> Iterator[Answered]:
        asked: dict[tuple[str, str], str] = {}  # (task, site) -> errand
        asked_s: dict[tuple[str, str], float] = {}
        with TaskBatch(self.dispatcher) as batch:
            while self._waits() and self.dispatcher.segment == segment:
                self._ask_new(batch, asked, asked_s)
                event = batch.next(_TICK_S)
                if event is not None and event.what == "over":
                    return
                if event is not None:  # counts as a heartbeat for all of the site's errands
                    asked_s |= {key: self.clock() for key in asked_s if key[1] == event.site}
                if event is not None and event.what == "reply":
                    name = asked.pop((event.task, event.site), None)
                    self._idle_since_s = self.clock()
                    if name is not None and name in self._left.get(event.site, ()):
                        self._left[event.site].discard(name)
                        yield Answered(event.site, name, event.header, event.payload)
                    if event.payload:
                        batch.acknowledge()
                    continue
                if any(self._works(key, asked_s[key]) for key in asked):
                    self._idle_since_s = self.clock()
                elif self.network.returned() & {s for s, names in self._left.items() if names}:
                    self.dispatcher.end_segment()  # the next segment includes them
                    self._wait_for_end(segment)
                    return

    def _ask_new(
        self,
        batch: TaskBatch,
        asked: dict[tuple[str, str], str],
        asked_s: dict[tuple[str, str], float],
    ) -> None:
        """Ask the sites that have not been asked in this segment yet."""
        there = set(self.dispatcher.sites) - {site for _, site in asked_s}
        new = sorted(site for site in there if self._left.get(site))
        for name, errand in self.errands.items():
            sites = [site for site in new if name in self._left[site]]
            if sites:
                task = batch.ask(dict(errand.header), errand.payload, sites)
                for site in sites:
                    asked[task, site], asked_s[task, site] = name, self.clock()
                    self._why[site] = "no answer"

    def _works(self, key: tuple[str, str], asked_s: float) -> bool:
        """Return whether a site that was asked may still answer."""
        site, waited_s = self.dispatcher.sites.get(key[1]), self.clock() - asked_s
        if site is None or self.dispatcher.silent_s(site.name) > self.silent_s:
            return False
        if waited_s > self.work_s:
            self._why[site.name] = f"no answer within {self.work_s:.0f} s"
        return waited_s <= (self.work_s if site.busy else _IDLE_S)

    def _wait_for_end(self, segment: int) -> None:
        until_s = self.clock() + _END_S
        while self.dispatcher.job and self.dispatcher.segment == segment:
            if self.clock() > until_s:
                self.dispatcher.drop()
                return
            with self.dispatcher.changed:
                self.dispatcher.changed.wait(0.2)
