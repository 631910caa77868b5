"""Clients on other machines: deadlines, silence, stragglers, segments.

What carries the messages is behind a `Network` (NVFlare first). It may lose a job, a server or a
vehicle at any moment; what is asked again then is asked with the same broadcast, and the answer is
the same, so a crash costs time and never changes the model.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fleetseg.config import FleetConfig
from fleetseg.engines.enrolment import Roster, Terms, hello
from fleetseg.engines.protocol import read_evaluation, read_failure
from fleetseg.engines.switchboard import Errand, Event, Switchboard, names_of
from fleetseg.errors import EngineError, FleetSegError, QuorumLost, UpdateRejected
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update
from fleetseg.federation.tensors import Layout
from fleetseg.federation.wire import decode_update, encode_broadcast

_TICK_S = 0.1
_FAREWELL_S = 3.0


class Network(Protocol):
    """Whatever keeps an engine's job running between this process and the sites."""

    def trouble(self) -> str:
        """Say why there is no segment now; empty while one runs or is on its way."""
        ...

    def fatal(self) -> FleetSegError | None:
        """What waiting does not mend, such as a full disk."""
        ...

    def returned(self) -> frozenset[str]:
        """Sites that are reachable but not part of the running segment."""
        ...

    def revoked(self) -> frozenset[str]:
        """Sites that may no longer take part."""
        ...


@dataclass
class _Stand:
    """Where a vehicle stands in one errand."""

    site: str
    task: str = ""
    asked_s: float = 0.0
    fetched: bool = False


class FleetEngine:
    """An `Engine` whose clients are reached over a network."""

    def __init__(self, terms: Terms, board: Switchboard, network: Network) -> None:
        self._terms, self._board, self._network = terms, board, network
        self._settings: FleetConfig = terms.experiment.fleet
        self._rounds_in_segment = 0
        self._clock = time.monotonic
        self._told = ""
        self._hellos: Errand | None = None
        self.roster = Roster()

    def traffic(self) -> tuple[int, int]:
        """Bytes of models and updates so far, (down, up), as they were handed to the network."""
        return self._board.bytes_down, self._board.bytes_up

    def available(self) -> Mapping[str, Enrolment]:
        """Every enrolled vehicle that gives signs of life and is not at work on an old task.

        Waits, up to `fleet.wait_s`, for `fleet.min_vehicles` of them.

        Raises:
            QuorumLost: too few came.
        """
        until_s = self._clock() + self._settings.wait_s
        while True:
            self._renew_if_due()
            self._enrol()
            here = self._here()
            if len(here) >= self._least():
                return here
            if self._clock() > until_s:
                raise self._too_few(here)
            self._tell(f"{len(here)} of {self._least()} vehicles are here; waiting for more")
            with self._board.changed:
                self._board.changed.wait(0.5)

    def train(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Update | Failure]:
        """Have vehicles train; each has until the deadline, and loses its place by silence."""
        self._rounds_in_segment += 1
        for vehicle, answer, payload in self._errand("train", cohort, broadcast, deadline_s):
            reply = answer if isinstance(answer, Failure) else self._update(vehicle, payload)
            if isinstance(reply, Update):
                self.roster.last_round[self.roster.site_of[vehicle]] = broadcast.round
            yield reply

    def evaluate(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Evaluation | Failure]:
        """Have vehicles score the model on their own samples."""
        classes = self._terms.space.num_classes
        for vehicle, answer, _ in self._errand("evaluate", cohort, broadcast, deadline_s):
            if isinstance(answer, Failure):
                yield answer
                continue
            try:
                yield read_evaluation(vehicle, answer, classes)
            except UpdateRejected as rejected:
                yield Failure(vehicle, "refused", rejected.reason, str(rejected)[:500])

    # One errand: ask, wait, ask again where a segment was lost

    def _errand(
        self, what: str, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[tuple[str, Any, bytes]]:
        payload = encode_broadcast(broadcast, self._terms.layout)
        header = {"what": what, "run": self._terms.run, "round": broadcast.round}
        until_s = self._clock() + deadline_s if deadline_s > 0 else float("inf")
        waiting = {vehicle: _Stand(self.roster.site_of[vehicle]) for vehicle in cohort}
        while waiting:
            self._enrol()
            for vehicle in [v for v in waiting if v not in self.roster.enrolled]:
                del waiting[vehicle]
                yield vehicle, Failure(vehicle, "lost", "not-back", "not in the new segment"), b""
            with Errand(self._board) as errand:
                self._ask(errand, header, payload, waiting)
                try:
                    yield from self._collect(errand, waiting, until_s)
                except GeneratorExit:  # enough have answered: nobody waits for the others
                    for stand in waiting.values():
                        self._overdue(stand)
                    raise

    def _ask(
        self, errand: Errand, header: dict[str, Any], payload: bytes, waiting: dict[str, _Stand]
    ) -> None:
        """Ask all vehicles: those of one site in turn, those of different sites by one task."""
        turns: dict[str, int] = {}
        waves: dict[int, dict[str, str]] = {}
        for vehicle, stand in waiting.items():
            stand.site = self.roster.site_of[vehicle]
            turn = turns[stand.site] = turns.get(stand.site, 0) + 1
            waves.setdefault(turn, {})[stand.site] = vehicle
        for wave in waves.values():
            named = {site: vehicle for site, vehicle in wave.items() if site != vehicle}
            told = {**header, "vehicles": named}
            task = errand.ask(told, payload, sorted(wave))
            for vehicle in wave.values():
                waiting[vehicle].task, waiting[vehicle].asked_s = task, self._clock()
                waiting[vehicle].fetched = False

    def _collect(
        self, errand: Errand, waiting: dict[str, _Stand], until_s: float
    ) -> Iterator[tuple[str, Any, bytes]]:
        by_task = {(stand.task, stand.site): vehicle for vehicle, stand in waiting.items()}
        while waiting:
            self._raise_if_fatal()
            event = errand.next(_TICK_S)
            if event is not None and event.what == "over":
                return
            if event is not None:
                vehicle = by_task.get((event.task, event.site))
                stand = waiting.get(vehicle) if vehicle is not None else None
                if vehicle is not None and stand is not None:
                    yield from self._heard(vehicle, stand, event, waiting)
                if event.payload:
                    errand.digested()
                if event.at_s <= until_s < self._clock():
                    continue  # it came in time, and others may have: read them first
            for vehicle, failure in self._given_up(waiting, until_s):
                self._overdue(waiting.pop(vehicle))
                yield vehicle, failure, b""

    def _heard(
        self, vehicle: str, stand: _Stand, event: Event, waiting: dict[str, _Stand]
    ) -> Iterator[tuple[str, Any, bytes]]:
        if event.what == "sent":
            stand.fetched, stand.asked_s = True, self._clock()
            return
        del waiting[vehicle]
        if stand.site in self._network.revoked():
            yield vehicle, Failure(vehicle, "refused", "revoked"), b""
            return
        for other in waiting.values():  # its turn comes now
            if other.site == stand.site:
                other.asked_s = self._clock()
        yield vehicle, read_failure(vehicle, event.header) or event.header, event.payload

    def _given_up(self, waiting: Mapping[str, _Stand], until_s: float) -> list[tuple[str, Failure]]:
        now_s, settings = self._clock(), self._settings
        if now_s > until_s:
            return [(v, Failure(v, "late", "deadline", "no answer in time")) for v in waiting]
        if self.roster.segment != self._board.segment or not self._board.job:
            return []  # the news of the segment's end is on its way
        lost = []
        for vehicle, stand in waiting.items():
            silent_s = self._board.silent_s(stand.site)
            if silent_s > settings.silent_s:
                lost.append((vehicle, Failure(vehicle, "lost", "silent", "no sign of life")))
            elif self._ignores(stand, now_s):
                reason = "dropped" if stand.fetched else "not-fetched"
                lost.append((vehicle, Failure(vehicle, "lost", reason, "idle, and no answer")))
        return lost

    def _ignores(self, stand: _Stand, now_s: float) -> bool:
        site = self._board.sites.get(stand.site)
        idle = site is not None and not site.busy
        return idle and now_s - stand.asked_s > self._settings.fetch_s

    def _overdue(self, stand: _Stand) -> None:
        with self._board.changed:
            site = self._board.sites.get(stand.site)
            if site is not None and stand.fetched:
                site.overdue = stand.task

    def _update(self, vehicle: str, payload: bytes) -> Update | Failure:
        terms = self._terms
        try:
            unpack = terms.uplink.unpack if terms.uplink else partial(_decode, terms.layout)
            update = unpack(payload)
        except UpdateRejected as rejected:
            return Failure(vehicle, "refused", rejected.reason, str(rejected)[:500])
        if update.client_id != vehicle:
            return Failure(vehicle, "refused", "identity", "an update in another one's name")
        return update

    # Segments and enrolment

    def _here(self) -> dict[str, Enrolment]:
        return {v: e for v, e in self.roster.enrolled.items() if self._answers(v)}

    def _answers(self, vehicle: str) -> bool:
        site = self._board.sites.get(self.roster.site_of[vehicle])
        if site is None or site.overdue or site.name in self._network.revoked():
            return False
        return self._board.silent_s(site.name) <= self._settings.silent_s

    def _least(self) -> int:
        return max(1, self._settings.min_vehicles)

    def _too_few(self, here: Mapping[str, Enrolment]) -> QuorumLost:
        refused = [f"{site}: {f.reason} ({f.detail})" for site, f in self.roster.refused.items()]
        return QuorumLost(
            "too few vehicles",
            got=f"{names_of(here)} after {self._settings.wait_s:.0f} s"
            + (f"; refused: {'; '.join(refused[:5])}" if refused else ""),
            expected=f"{self._least()} (fleet.min_vehicles)",
            cure="The model of the last round is kept; see `fleetseg fleet status`, then --resume",
        )

    def _raise_if_fatal(self) -> None:
        if fatal := self._board.fatal or self._network.fatal():
            raise fatal

    def _tell(self, text: str) -> None:
        """Say why nothing happens, when that changes."""
        if text and text != self._told:
            self._told = text
            self._terms.tell(text)

    def _renew_if_due(self) -> None:
        """End a segment that is long enough, that a vehicle waits for the end of, or must leave."""
        board, settings = self._board, self._settings
        if not board.job or self.roster.segment != board.segment:
            return
        waited = board.began_s + settings.renew_s < self._clock() and self._network.returned()
        banned = self._network.revoked() & set(board.sites)
        if waited or banned or self._rounds_in_segment >= settings.segment_rounds:
            segment = board.segment
            self._say_farewell(banned)
            board.end_segment()
            self._wait_for_segment(after=segment)

    def _say_farewell(self, sites: Collection[str]) -> None:
        """Have the vehicles' side know why it hears nothing from now on."""
        waiting, until_s = set(sites), self._clock() + _FAREWELL_S
        with Errand(self._board) as errand:
            if waiting:
                errand.ask({"what": "farewell", "run": self._terms.run}, b"", sorted(waiting))
            while waiting and self._clock() < until_s:
                event = errand.next(_TICK_S)
                if event is not None and event.what == "over":
                    return
                if event is not None and event.what == "reply":
                    waiting.discard(event.site)

    def _wait_for_segment(self, after: int) -> None:
        until_s = self._clock() + self._settings.outage_s
        board = self._board
        while not (board.job and board.segment > after):
            self._raise_if_fatal()
            self._tell(self._network.trouble())
            if self._clock() > until_s:
                raise EngineError(
                    f"no connection to the fleet for {self._settings.outage_s:.0f} s",
                    got=self._network.trouble() or None,
                    cure="The run folder is intact: go on with --resume",
                )
            with board.changed:
                board.changed.wait(0.2)

    def _enrol(self) -> None:
        """Make sure that there is a segment and that its sites have enrolled."""
        self._wait_for_segment(after=0)
        self._welcome_latecomers()
        while self.roster.segment != self._board.segment or not self._board.job:
            self._wait_for_segment(after=0)
            self._open_segment()

    def _open_segment(self) -> None:
        board = self._board
        segment, sites = board.segment, set(board.sites)
        self._rounds_in_segment = 0
        self.roster = Roster(segment, last_round=self.roster.last_round)
        until_s = self._clock() + self._settings.gather_s
        if self._hellos is not None:
            self._hellos.close()
        # Not closed at the end: who takes longer to open its data is welcome later.
        self._hellos = errand = Errand(board)
        errand.ask(hello(self._terms), b"", sorted(sites))
        while sites and self._clock() < until_s:
            event = errand.next(_TICK_S)
            if event is not None and event.what == "over":
                break
            if event is not None and event.what == "reply":
                sites.discard(event.site)
                self.roster.welcome(event.site, event.header, self._terms)
            silent = [s for s in sites if board.silent_s(s) > self._settings.silent_s]
            sites -= set(silent)

    def _welcome_latecomers(self) -> None:
        while self._hellos is not None and (event := self._hellos.next(0)) is not None:
            if event.what == "reply":
                self.roster.welcome(event.site, event.header, self._terms)


def _decode(layout: Layout, payload: bytes) -> Update:
    update = decode_update(payload, layout)
    return Update(**{**vars(update), "wire_bytes": len(payload)})
