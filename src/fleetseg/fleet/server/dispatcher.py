"""Routes replies from the engine's job to the waiting requests, and tracks which sites are there.

One thread reads what the job sends. When the job ends, planned or by kill -9, the connection is
lost, and the next job that connects starts a new *segment*.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fleetseg.errors import CheckpointError, EngineError, FleetSegError
from fleetseg.failures import failure_header, is_failure
from fleetseg.files import disk_full, is_disk_full
from fleetseg.fleet.beats import QUICK_S, beat_every_s
from fleetseg.fleet.message_log import MessageLog
from fleetseg.fleet.server.silence import Site, counts_from_s, fell_silent_together
from fleetseg.fleet.sockets import (
    MAX_REPLY_HEADER,
    Connection,
    ConnectionLost,
    Header,
    Listener,
)
from fleetseg.fleet.threads import start_thread
from fleetseg.strict_json import BadJson, read_table

_BESIDE_RUNS = ("release",)  # tasks whose bytes do not count for a round
_NO_WORK = ("", "hello", "revoked")  # tasks, and no task, whose replies are not a client's work
_WAITING_REPLIES = 2  # read but not yet aggregated; beyond that, the network waits
_LOOK_S = 0.2


@dataclass(frozen=True)
class _Asked:
    """An open task."""

    batch: TaskBatch
    num_bytes: int
    what: str
    beat_s: float  # heartbeat interval of a site working on it


@dataclass(frozen=True)
class Event:
    """What happened to a task: it was fetched or answered, or the segment is over."""

    what: Literal["sent", "reply", "over"]
    task: str = ""
    site: str = ""
    header: Header = field(default_factory=dict)
    payload: bytes = b""
    at_s: float = 0.0  # time of arrival, by the dispatcher's clock


class TaskBatch:
    """Tasks asked together; use it as a context manager, which cancels tasks still open."""

    def __init__(self, dispatcher: TaskDispatcher) -> None:
        self._dispatcher = dispatcher
        self.events: queue.Queue[Event] = queue.Queue()
        self.room = threading.Semaphore(_WAITING_REPLIES)
        self.tasks: set[str] = set()
        self.over = False

    def __enter__(self) -> TaskBatch:
        """Return the batch itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Cancel every open task."""
        self.close()

    def close(self) -> None:
        """Cancel every open task."""
        self.over = True
        self._dispatcher.cancel(self)

    def ask(self, header: Header, payload: bytes, targets: Sequence[str], same_as: str = "") -> str:
        """Ask sites; returns the task's name.

        `same_as` names a task of this batch with the same payload, which is then not sent twice.
        """
        return self._dispatcher.ask(self, header, payload, targets, same_as)

    def next(self, timeout_s: float) -> Event | None:
        """Wait for the next event; returns None on time-out."""
        with contextlib.suppress(queue.Empty):
            return self.events.get(timeout=timeout_s) if timeout_s else self.events.get_nowait()
        return None

    def acknowledge(self) -> None:
        """Make room for the next update: one returned by `next` is no longer needed."""
        self.room.release()

    def put(self, event: Event) -> None:
        """Pass on an event; one with an update waits until there is room for it."""
        while event.payload and not self.room.acquire(timeout=0.2):
            if self.over:
                return
        self.events.put(event)


class TaskDispatcher:
    """Reads the connection of each segment in turn and routes its messages."""

    def __init__(
        self, listener: Listener, message_log: MessageLog, clock: Callable[[], float]
    ) -> None:
        self._listener, self._message_log, self.clock = listener, message_log, clock
        self.changed = threading.Condition()
        self.job = ""  # the engine's name for the segment; "" while there is none
        self.segment = 0  # number of segments so far
        self.began_s = 0.0
        self.sites: dict[str, Site] = {}
        self.ending = False  # whether this side has asked the segment to end
        self.answered = 0  # number of the last segment in which a site has done a client's task
        self.bytes_down = self.bytes_up = 0
        self.fatal: FleetSegError | None = None  # an error that waiting does not resolve
        self._connection: Connection | None = None
        self._caught_up_s = 0.0  # when everything sent by the job had last been read
        self._listening_s: float | None = None  # since when this thread waits for the job
        self._tasks: dict[str, _Asked] = {}
        self._idle_beat_s = QUICK_S  # heartbeat interval of a site without work
        self._named = 0
        self._closing = False
        self._thread = start_thread(self._serve, "fleetseg-dispatcher", self.fail)

    def fail(self, error: FleetSegError) -> None:
        """End the run with an error and wake everything that waits."""
        with self.changed:
            self.fatal = self.fatal or error
            self.changed.notify_all()
        self.drop()

    def close(self) -> None:
        """End the segment and stop listening."""
        self._closing = True
        self.end_segment()
        self._thread.join(timeout=5)
        self._listener.close()

    def end_segment(self) -> None:
        """Ask the engine's job to end; a new one may follow."""
        connection = self._connection
        if connection is not None:
            self.ending = True
            with contextlib.suppress(ConnectionLost):
                connection.send({"do": "end"})

    def drop(self) -> None:
        """Give up the segment; this ends its job if that is still running."""
        connection = self._connection
        if connection is not None:
            connection.close()

    def ask(
        self,
        batch: TaskBatch,
        header: Header,
        payload: bytes,
        targets: Sequence[str],
        same_as: str = "",
    ) -> str:
        """Send a request to sites of this segment; returns the task's name."""
        with self.changed:
            self._named += 1
            task = f"{header['what']}-{self._named}"
            batch.tasks.add(task)
            beat_s = beat_every_s(len(targets))
            self._tasks[task] = _Asked(batch, len(payload), header["what"], beat_s)
            for site in targets:
                if site in self.sites:
                    self.sites[site].asked_s = self.clock()
            connection = self._connection
        request = {
            "do": "ask",
            "task": task,
            "targets": list(targets),
            "header": {**header, "task": task},
            **({"same_as": same_as} if same_as else {}),
        }
        with contextlib.suppress(ConnectionLost):  # the batch learns that the segment is over
            if connection is None:
                raise ConnectionLost("no segment")
            connection.send(request, b"" if same_as else payload)
            return task
        batch.put(Event("over"))
        return task

    def cancel(self, batch: TaskBatch) -> None:
        """Cancel all tasks of a batch; sites still working on one are overdue."""
        connection = self._connection
        for task in batch.tasks:
            with self.changed:
                self._tasks.pop(task, None)
            if connection is not None:
                with contextlib.suppress(ConnectionLost):
                    connection.send({"do": "cancel", "task": task})

    def silent_s(self, site: str) -> float:
        """Return the seconds for which a site has been silent; infinite if not in this segment.

        Silence starts a second before a heartbeat is due, and ends when everything had last been
        read: a heartbeat queued behind updates is not a missing one.
        """
        with self.changed:
            known = self.sites.get(site)
            return max(0.0, self._caught_up_s - self._heard_s(known)) if known else float("inf")

    def _heard_s(self, site: Site) -> float:
        task = self._tasks.get(site.busy)
        return counts_from_s(site, task.beat_s if task else self._idle_beat_s)

    def stalled_s(self, site: str) -> float:
        """Return the seconds without progress of a site that is heard; 0 if it reports none."""
        with self.changed:
            known = self.sites.get(site)
            if known is None or not known.progress:
                return 0.0
            return max(0.0, self._caught_up_s - known.moved_s)

    def all_silent(self, patience_s: float) -> bool:
        """Return whether no site is heard and several stopped together: not the sites' fault."""
        with self.changed:
            beats_s = [self._heard_s(site) for site in self.sites.values()]
            return fell_silent_together(beats_s, self._caught_up_s, patience_s)

    def behind_s(self) -> float:
        """Return the seconds since everything that the job had sent was read."""
        return self.clock() - self._caught_up_s

    def job_silent_s(self) -> float:
        """Return the seconds for which the job has sent nothing while this side listened."""
        since_s = self._listening_s
        return self.clock() - since_s if self.job and since_s is not None else 0.0

    def _serve(self) -> None:
        while not self._closing:
            connection = self._listener.accept(timeout_s=0.5)
            if connection is None:
                continue
            with contextlib.suppress(ConnectionLost), contextlib.closing(connection):
                while message := self._next_message(connection):
                    if (error := self._error_of(connection, *message)) is not None:
                        self.fatal = error
                        break
            self._on_disconnect(connection)

    def _next_message(self, connection: Connection) -> tuple[Header, bytes]:
        self._listening_s = self.clock()
        message = connection.receive(timeout_s=0)
        while message is None:
            self._caught_up_s = self.clock()
            message = connection.receive(timeout_s=_LOOK_S)
        self._listening_s = None  # while a message is handled, or waits for room
        return message

    def _error_of(
        self, connection: Connection, header: Header, payload: bytes
    ) -> FleetSegError | None:
        """Handle a message; returns any error, so that a failed dispatcher never goes unnoticed."""
        try:
            self._on_message(connection, header, payload)
        except OSError as error:
            return _log_error(self._message_log.path, error)
        except Exception as error:
            text = f"a message could not be handled ({type(error).__name__}: {error})"
            return EngineError(text[:300])
        return None

    def _on_disconnect(self, connection: Connection) -> None:
        with self.changed:
            if self._connection is not connection:
                return
            self._connection, self.job, self.sites = None, "", {}
            cut_off = {id(asked.batch): asked.batch for asked in self._tasks.values()}
            self.changed.notify_all()
        for batch in cut_off.values():
            batch.put(Event("over"))

    def _on_message(self, connection: Connection, header: Header, payload: bytes) -> None:
        what = header["is"]
        if what == "joined":
            self._on_joined(connection, header)
        elif what == "beat":
            self._on_beat(header["site"], header["busy"], header.get("progress", ""))
        elif what == "gone":
            with self.changed:
                if header["site"] in self.sites:
                    self.sites[header["site"]].beat_s = float("-inf")
                self.changed.notify_all()
        elif what == "late":
            self._on_late_reply(header["site"], header["bytes"])
        elif what != "alive":
            self._deliver(header, payload)

    def _on_joined(self, connection: Connection, header: Header) -> None:
        now_s = self.clock()
        with self.changed:
            self._connection, self.job, self.began_s = connection, header["job"], now_s
            self.segment += 1
            self._idle_beat_s = header.get("beat_s", QUICK_S)
            self.ending = False
            self.sites = {name: Site(name, now_s) for name in header["sites"]}
            self._caught_up_s = now_s
            self.changed.notify_all()

    def _on_beat(self, name: str, busy: str, progress: str) -> None:
        with self.changed:
            site = self.sites.setdefault(name, Site(name, 0.0))
            if (busy, progress) != (site.busy, site.progress):
                site.moved_s = self.clock()
            site.beat_s, site.busy, site.progress = self.clock(), busy, progress
            if site.overdue and site.overdue != busy:
                site.overdue = ""
            self.changed.notify_all()

    def _on_late_reply(self, name: str, num_bytes: int) -> None:
        with self.changed:
            self.bytes_up += num_bytes
            if name in self.sites:
                self.sites[name].overdue = ""

    def _deliver(self, header: Header, payload: bytes) -> None:
        task, name = header["task"], header["site"]
        is_reply = header["is"] == "reply"
        with self.changed:
            asked = self._tasks.get(task)
            what = asked.what if asked else ""
            site = self.sites.get(name)
            if site is not None:
                site.beat_s = self.clock()
            if is_reply:
                self.bytes_up += len(payload)
            elif asked is not None and what not in _BESIDE_RUNS:
                self.bytes_down += asked.num_bytes
        now_s = self.clock()
        if not is_reply:
            if asked is not None:
                asked.batch.put(Event("sent", task, name, at_s=now_s))
            return
        text = header["header"]
        reply = _read_reply(text)
        if what not in _NO_WORK and not is_failure(reply):
            self.answered = self.segment
        # Log the message as received, so that both sides' logs have the same digests.
        self._message_log.append(what or "late", name, reply, payload, text=text.encode())
        if asked is not None:
            wanted = b"" if what in _NO_WORK else payload
            asked.batch.put(Event("reply", task, name, reply, wanted, now_s))


def _read_reply(text: str) -> Header:
    """Read the header of a site's reply; an unreadable one becomes that site's failure."""
    try:
        return read_table(text, max_bytes=MAX_REPLY_HEADER)
    except BadJson as bad:
        return failure_header("refused", "malformed", f"a header that cannot be read: {bad}")


def _log_error(path: Path, error: OSError) -> FleetSegError:
    if is_disk_full(error):
        return disk_full(path, 200)
    return CheckpointError(f"cannot be written ({error.strerror})", where=path)


def names_of(sites: Mapping[str, Any]) -> str:
    """Join the names of sites into a text."""
    return ", ".join(sorted(sites)) or "none"
