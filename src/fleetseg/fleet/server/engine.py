"""The engine of a networked fleet: deadlines, silence, stragglers, segments.

The transport is behind a `Network` (NVFlare first). It may lose a job, a server or a vehicle at any
moment. A task is then asked again with the same broadcast, and the answer is the same, so a crash
costs time and never changes the model.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

from fleetseg.config import FleetConfig
from fleetseg.errors import EngineError, FleetSegError, QuorumLost
from fleetseg.federation.admission import left_out
from fleetseg.federation.cohort import size_of
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, Update
from fleetseg.federation.replies import read_failure, read_reply
from fleetseg.fleet.server.dispatcher import Event, TaskBatch, TaskDispatcher, names_of
from fleetseg.fleet.server.enrolment import Roster, RunSpec, hello
from fleetseg.fleet.server.patience import Patience, Pending
from fleetseg.fleet.server.pulse import Pulse
from fleetseg.fleet.server.releases import ReleaseOffers
from fleetseg.fleet.server.requests import Requests

_TICK_S = 0.1
_JUDGED_A_SECOND = 1_000  # vehicles checked per second; with more, each is checked less often
_FEW_OF_ALL = 0.02  # share of a job's vehicles that must have returned for a renewal after renew_s
_NOTIFY_REVOKED_S = 3.0


class Network(Protocol):
    """Keeps an engine's job running between this process and the sites."""

    def trouble(self) -> str:
        """Return why there is no segment now; empty while one runs or is starting."""
        ...

    def fatal(self) -> FleetSegError | None:
        """Return an error that waiting does not resolve, such as a full disk."""
        ...

    def expected(self) -> frozenset[str]:
        """Return all sites that may take part, whether connected or not."""
        ...

    def returned(self) -> frozenset[str]:
        """Return sites that are reachable but not part of the running segment."""
        ...

    def revoked(self) -> frozenset[str]:
        """Return sites that may no longer take part."""
        ...

    def quarantined(self) -> Mapping[str, str]:
        """Return sites that are left out for a time because they ended segments, and why."""
        ...


class FleetEngine:
    """An `Engine` whose clients are reached over a network."""

    def __init__(
        self,
        spec: RunSpec,
        dispatcher: TaskDispatcher,
        network: Network,
        offers: ReleaseOffers | None = None,
    ) -> None:
        self._spec, self._dispatcher, self._network = spec, dispatcher, network
        self._offers = offers
        self._settings: FleetConfig = spec.experiment.fleet
        self._rounds_in_segment = 0
        self._clock = dispatcher.clock
        self._patience = Patience(self._settings, dispatcher, network.returned, self._notify)
        self._notified = ""
        self._left_out = frozenset[str]()
        self._hellos: TaskBatch | None = None
        self._planned_ends: Counter[str] = Counter()
        self.roster = Roster()
        self.pulse = Pulse()

    def segment_ends(self) -> Mapping[str, int]:
        """Count the reasons for segments' ends; `lost` are those that this side did not end."""
        begun, planned = self._dispatcher.segment, sum(self._planned_ends.values())
        lost = begun - planned - bool(self._dispatcher.job)
        return {**self._planned_ends, "lost": max(0, lost)}

    def meter(self) -> Meter:
        """See Engine: bytes as handed to the network."""
        return Meter(self._dispatcher.bytes_down, self._dispatcher.bytes_up, time.monotonic())

    def available(self) -> Mapping[str, Enrolment]:
        """Return every enrolled vehicle that is alive and not working on an old task.

        Waits, up to `fleet.wait_s`, for `fleet.min_vehicles` of them.

        Raises:
            QuorumLost: too few vehicles came.
        """
        began_s = self._patience.cut_off_s or self._clock()
        while True:
            self._raise_if_fatal()
            self._patience.is_cut_off()
            self._renew_if_due()
            self._enrol()
            self._notify_quarantined()
            if self._offers is not None:
                self._offers.poll(self.roster.drives, self._network.revoked())
            reachable = self._reachable()
            out = left_out(reachable, self._spec.experiment.federation)
            wanted = {v: enrolment for v, enrolment in reachable.items() if v not in out}
            if len(wanted) >= self._min_vehicles():
                self.pulse.working()
                return reachable
            if self._clock() > began_s + self._settings.wait_s:
                raise self._too_few(wanted)
            self._notify(
                f"{len(wanted)} of {self._min_vehicles()} vehicles are here; waiting for more"
            )
            with self._dispatcher.changed:
                self._dispatcher.changed.wait(0.5)

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        """Have vehicles do a task; each has until the deadline, and is given up if it falls silent.

        Without a deadline, the limit follows from how long turns have taken: see `TurnTimes`.
        """
        self._rounds_in_segment += task == "train"
        num_classes, codec = self._spec.space.num_classes, self._spec.codec
        for vehicle, answer, payload in self._request(task, asks, deadline_s):
            reply = answer
            if not isinstance(reply, Failure):
                reply = read_reply(vehicle, answer, payload, num_classes=num_classes, codec=codec)
            if isinstance(reply, Update):
                self.roster.last_round[self.roster.site_of[vehicle]] = reply.round
            yield reply
        self.pulse.working()

    # One task: ask, wait, ask again if a segment was lost

    def _request(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float
    ) -> Iterator[tuple[str, Any, bytes]]:
        requests = Requests(task, self._spec, asks)
        until_s = self._clock() + deadline_s if deadline_s > 0 else float("inf")
        waiting = {
            vehicle: Pending(
                self.roster.site_of[vehicle],
                limit_s=float("inf") if deadline_s else self._patience.turns.limit_s(task, vehicle),
            )
            for vehicle in asks
        }
        while waiting:
            self._enrol()
            for vehicle in [v for v in waiting if v not in self.roster.enrolled]:
                del waiting[vehicle]
                yield vehicle, Failure(vehicle, "lost", "not-back", "not in the new segment"), b""
            with TaskBatch(self._dispatcher) as batch:
                self._ask(batch, requests, waiting)
                try:
                    yield from self._collect(batch, waiting, until_s)
                except GeneratorExit:  # enough have answered: the others are not needed
                    for pending in waiting.values():
                        self._patience.abandon(pending)
                    raise

    def _ask(self, batch: TaskBatch, requests: Requests, waiting: dict[str, Pending]) -> None:
        """Ask all vehicles: those of one site one after another, across sites in one task."""
        turns: dict[str, int] = {}
        waves: dict[tuple[int, int], dict[str, str]] = {}
        for vehicle, pending in waiting.items():
            pending.site = self.roster.site_of[vehicle]
            turn = turns[pending.site] = turns.get(pending.site, 0) + 1
            waves.setdefault((turn, requests.number_of[vehicle]), {})[pending.site] = vehicle
        carries: dict[int, str] = {}  # payload -> the first task that has it
        for (_, number), wave in waves.items():
            header, payload = requests.written(number, wave)
            task = batch.ask(header, payload, sorted(wave), carries.get(number, ""))
            carries.setdefault(number, task)
            for vehicle in wave.values():
                waiting[vehicle].task, waiting[vehicle].asked_s = task, self._clock()
                waiting[vehicle].fetched = False

    def _collect(
        self, batch: TaskBatch, waiting: dict[str, Pending], until_s: float
    ) -> Iterator[tuple[str, Any, bytes]]:
        by_task = {(pending.task, pending.site): vehicle for vehicle, pending in waiting.items()}
        at_site: dict[str, set[str]] = {}
        for name, asked in waiting.items():
            at_site.setdefault(asked.site, set()).add(name)
        judged_s = float("-inf")
        while waiting:
            self._raise_if_fatal()
            event = batch.next(_TICK_S)
            if event is not None and event.what == "over":
                return
            if event is not None:
                vehicle = by_task.get((event.task, event.site))
                pending = waiting.get(vehicle) if vehicle is not None else None
                if vehicle is not None and pending is not None:
                    others = at_site[pending.site]
                    yield from self._on_event(vehicle, pending, event, waiting, others)
                if event.payload:
                    batch.acknowledge()
                if event.at_s <= until_s:
                    continue  # read other replies first, before giving up any vehicle
            due_s = judged_s + len(waiting) / _JUDGED_A_SECOND
            if self._clock() < min(due_s, until_s):
                continue
            judged_s = self._clock()
            for vehicle, failure in self._given_up(waiting, until_s):
                self._patience.abandon(waiting.pop(vehicle))
                yield vehicle, failure, b""

    def _on_event(
        self,
        vehicle: str,
        pending: Pending,
        event: Event,
        waiting: dict[str, Pending],
        at_site: Collection[str],
    ) -> Iterator[tuple[str, Any, bytes]]:
        if event.what == "sent":
            pending.fetched, pending.asked_s = True, self._clock()
            return
        del waiting[vehicle]
        if read_failure(vehicle, event.header) is None:
            # Tasks are named like "train-7": what was asked, and a number.
            self._patience.turns.add(
                event.task.rpartition("-")[0], vehicle, event.at_s - pending.asked_s
            )
        if pending.site in self._network.revoked():
            yield vehicle, Failure(vehicle, "refused", "revoked"), b""
            return
        for other in at_site:  # the site's other vehicles get their turn now
            if other in waiting:
                waiting[other].asked_s = self._clock()
        yield vehicle, event.header, event.payload

    def _given_up(
        self, waiting: Mapping[str, Pending], until_s: float
    ) -> list[tuple[str, Failure]]:
        if self._clock() > until_s:
            return [(v, Failure(v, "late", "deadline", "no answer in time")) for v in waiting]
        if self.roster.segment != self._dispatcher.segment or not self._dispatcher.job:
            return []  # the event that ends the batch is coming
        return self._patience.given_up(waiting)

    # Segments and enrolment

    def _reachable(self) -> dict[str, Enrolment]:
        return {v: e for v, e in self.roster.enrolled.items() if self._is_reachable(v)}

    def _is_reachable(self, vehicle: str) -> bool:
        site = self._dispatcher.sites.get(self.roster.site_of[vehicle])
        if site is None or site.overdue or site.name in self._network.revoked():
            return False
        if self._dispatcher.stalled_s(site.name) > self._patience.stalled_s:
            return False
        return self._dispatcher.silent_s(site.name) <= self._settings.silent_s

    def _min_vehicles(self) -> int:
        """Return fleet.min_vehicles, or a quorum of the cohort that the whole fleet would give."""
        federation, assigned = self._spec.experiment.federation, self._spec.assigned
        if self._settings.min_vehicles:
            return self._settings.min_vehicles
        names = self._network.expected()
        if assigned is not None:
            names = frozenset(v for site in names & assigned.keys() for v in assigned[site])
        taking_part = len(names) - len(left_out(names, federation))
        return max(1, math.ceil(federation.quorum * size_of(federation.cohort, taking_part) - 1e-9))

    def _too_few(self, reachable: Mapping[str, Enrolment]) -> QuorumLost:
        refused = [f"{site}: {f.reason} ({f.detail})" for site, f in self.roster.refused.items()]
        kept_out = [f"{site}: {why}" for site, why in self._network.quarantined().items()]
        return QuorumLost(
            "too few vehicles",
            got=f"{names_of(reachable)} after {self._settings.wait_s:.0f} s"
            + (f"; refused: {'; '.join(refused[:5])}" if refused else "")
            + (f"; left out: {'; '.join(kept_out[:5])}" if kept_out else ""),
            expected=f"{self._min_vehicles()} (fleet.min_vehicles)",
            cure="The model of the last round is kept; see `fleetseg fleet status`, then --resume",
        )

    def _raise_if_fatal(self) -> None:
        self.pulse.waiting()
        if fatal := self._dispatcher.fatal or self._network.fatal():
            raise fatal

    def _notify(self, text: str) -> None:
        """Tell the user why nothing happens, whenever the reason changes."""
        if text and text != self._notified:
            self._notified = text
            self._spec.tell(text)

    def _notify_quarantined(self) -> None:
        """Tell the user once about each site that is left out for a time, and about its return."""
        kept_out = self._network.quarantined()
        for site, why in kept_out.items():
            if site not in self._left_out:
                self._spec.tell(f"{site} is left out: {why}")
        for site in self._left_out - kept_out.keys():
            self._spec.tell(f"{site} is tried again")
        self._left_out = frozenset(kept_out)

    def _renew_if_due(self) -> None:
        """End a segment at its length, for a returned vehicle, or to remove a revoked one."""
        dispatcher, settings = self._dispatcher, self._settings
        if not dispatcher.job or self.roster.segment != dispatcher.segment:
            return
        returned, renew_s = self._network.returned(), settings.renew_s
        # A new segment costs every vehicle time: the fewer have returned, the later it comes.
        renew_s *= max(1.0, _FEW_OF_ALL * len(dispatcher.sites) / max(len(returned), 1))
        waited = returned and dispatcher.began_s + renew_s < self._clock()
        revoked = self._network.revoked() & set(dispatcher.sites)
        if waited or revoked or self._rounds_in_segment >= settings.segment_rounds:
            segment = dispatcher.segment
            why = "revoked" if revoked else "returned" if waited else "length"
            self._planned_ends[why] += 1
            self._notify_revoked(revoked)
            dispatcher.end_segment()
            self._wait_for_segment(after=segment)

    def _notify_revoked(self, sites: Collection[str]) -> None:
        """Tell revoked vehicles that they have been revoked and will get no more tasks."""
        waiting, until_s = set(sites), self._clock() + _NOTIFY_REVOKED_S
        with TaskBatch(self._dispatcher) as batch:
            if waiting:
                batch.ask({"what": "revoked", "run": self._spec.run}, b"", sorted(waiting))
            while waiting and self._clock() < until_s:
                event = batch.next(_TICK_S)
                if event is not None and event.what == "over":
                    return
                if event is not None and event.what == "reply":
                    waiting.discard(event.site)

    def _wait_for_segment(self, after: int) -> None:
        until_s = self._clock() + self._settings.outage_s
        dispatcher = self._dispatcher
        while not (dispatcher.job and dispatcher.segment > after):
            self._raise_if_fatal()
            self._notify(self._network.trouble())
            if self._clock() > until_s:
                raise EngineError(
                    f"no connection to the fleet for {self._settings.outage_s:.0f} s",
                    got=self._network.trouble() or None,
                    cure="The run folder is intact: continue with --resume",
                )
            with dispatcher.changed:
                dispatcher.changed.wait(0.2)

    def _enrol(self) -> None:
        """Make sure that there is a segment and that its sites have enrolled."""
        self._wait_for_segment(after=0)
        self._register_latecomers()
        while self.roster.segment != self._dispatcher.segment or not self._dispatcher.job:
            self._wait_for_segment(after=0)
            self._open_segment()

    def _open_segment(self) -> None:
        dispatcher = self._dispatcher
        segment, sites = dispatcher.segment, set(dispatcher.sites)
        self._rounds_in_segment = 0
        self.roster = Roster(segment, last_round=self.roster.last_round)
        until_s = self._clock() + self._settings.gather_s
        if self._hellos is not None:
            self._hellos.close()
        # Not closed at the end: a site that takes longer to open its data is registered later.
        self._hellos = batch = TaskBatch(dispatcher)
        batch.ask(*hello(self._spec), sorted(sites))
        while sites and self._clock() < until_s:
            self._raise_if_fatal()
            event = batch.next(_TICK_S)
            if event is not None and event.what == "over":
                break
            if event is not None and event.what == "reply":
                sites.discard(event.site)
                self.roster.register(event.site, event.header, self._spec)
            if event is not None:
                continue
            silent = [s for s in sites if dispatcher.silent_s(s) > self._settings.silent_s]
            sites -= set(silent)

    def _register_latecomers(self) -> None:
        while self._hellos is not None and (event := self._hellos.next(0)) is not None:
            if event.what == "reply":
                self.roster.register(event.site, event.header, self._spec)
