"""Routes replies from the engine's job to the requests that wait for them, and knows who is there.

One thread reads what the job sends. When the job ends, by plan or by kill -9, the connection is
lost, and the next job that connects takes its place: a new *segment*.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fleetseg.errors import CheckpointError, EngineError, FleetSegError
from fleetseg.failures import failure_header, is_failure
from fleetseg.files import disk_full, is_disk_full
from fleetseg.fleet.beats import QUICK_S, beat_every_s
from fleetseg.fleet.message_log import MessageLog
from fleetseg.fleet.sockets import (
    MAX_REPLY_HEADER,
    Connection,
    ConnectionLost,
    Header,
    Listener,
)
from fleetseg.fleet.threads import start_thread
from fleetseg.strict_json import BadJson, read_table

_BESIDE_RUNS = ("release",)  # tasks whose bytes are no round's
_NO_WORK = ("", "hello", "revoked")  # tasks, and none at all, whose answers are no client's work
_WAITING_REPLIES = 2  # read but not folded yet; beyond it, the network waits
_LOOK_S = 0.2
_AT_ONCE_S = 5.0  # some sign of life comes each second: who stopped within so much did so together


@dataclass
class Site:
    """One kit's process in the current segment."""

    name: str
    beat_s: float  # monotonic time of the last sign of life
    busy: str = ""  # the task it reports to be at work on
    progress: str = ""  # how far it reports to be; any other text is progress
    moved_s: float = 0.0  # when that, or the task, last changed
    overdue: str = ""  # a task it fetched and nobody waits for any more
    asked_s: float = float("-inf")  # when it was last asked, which has it give a sign of life


@dataclass(frozen=True)
class _Asked:
    """A task that stands."""

    batch: TaskBatch
    num_bytes: int
    what: str
    beat_s: float  # between two signs of life of a site that is at work on it


@dataclass(frozen=True)
class Event:
    """What happened to a task: it was fetched, it was answered, or the segment is over."""

    what: Literal["sent", "reply", "over"]
    task: str = ""
    site: str = ""
    header: Header = field(default_factory=dict)
    payload: bytes = b""
    at_s: float = 0.0  # when it came, by the dispatcher's clock


class TaskBatch:
    """Tasks asked together; use it as a context manager, which cancels what is left."""

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
        """Cancel every task that still stands."""
        self.close()

    def close(self) -> None:
        """Cancel every task that still stands."""
        self.over = True
        self._dispatcher.cancel(self)

    def ask(self, header: Header, payload: bytes, targets: Sequence[str]) -> str:
        """Ask sites; returns the task's name."""
        return self._dispatcher.ask(self, header, payload, targets)

    def next(self, timeout_s: float) -> Event | None:
        """Wait for something to happen."""
        with contextlib.suppress(queue.Empty):
            return self.events.get(timeout=timeout_s) if timeout_s else self.events.get_nowait()
        return None

    def acknowledge(self) -> None:
        """Let the next update in: one that came out of `next` is no longer needed."""
        self.room.release()

    def put(self, event: Event) -> None:
        """Hand an event over; one with an update waits until there is room for it."""
        while event.payload and not self.room.acquire(timeout=0.2):
            if self.over:
                return
        self.events.put(event)


class TaskDispatcher:
    """Reads the connection of one segment after another and routes what comes."""

    def __init__(
        self, listener: Listener, message_log: MessageLog, clock: Callable[[], float]
    ) -> None:
        self._listener, self._message_log, self.clock = listener, message_log, clock
        self.changed = threading.Condition()
        self.job = ""  # the engine's name of the segment; "" while there is none
        self.segment = 0  # number of segments so far
        self.began_s = 0.0
        self.sites: dict[str, Site] = {}
        self.ending = False  # whether this side has asked the segment to end
        self.answered = 0  # number of the last segment in which a site has done a client's task
        self.bytes_down = self.bytes_up = 0
        self.fatal: FleetSegError | None = None  # what waiting does not mend
        self._connection: Connection | None = None
        self._caught_up_s = 0.0  # when nothing that the job had sent was left unread
        self._listening_s: float | None = None  # since when the job has the word
        self._tasks: dict[str, _Asked] = {}
        self._idle_beat_s = QUICK_S  # between two signs of life of a site that has no work
        self._named = 0
        self._closing = False
        self._thread = start_thread(self._serve, "fleetseg-dispatcher", self.fail)

    def fail(self, error: FleetSegError) -> None:
        """End the run with an error, whoever waits for whatever."""
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
        """Have the engine's job end; a new one may follow."""
        connection = self._connection
        if connection is not None:
            self.ending = True
            with contextlib.suppress(ConnectionLost):
                connection.send({"do": "end"})

    def drop(self) -> None:
        """Take the segment for lost: its job, if it is still there, ends by it."""
        connection = self._connection
        if connection is not None:
            connection.close()

    def ask(self, batch: TaskBatch, header: Header, payload: bytes, targets: Sequence[str]) -> str:
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
        }
        with contextlib.suppress(ConnectionLost):  # the batch learns that the segment is over
            if connection is None:
                raise ConnectionLost("no segment")
            connection.send(request, payload)
            return task
        batch.put(Event("over"))
        return task

    def cancel(self, batch: TaskBatch) -> None:
        """Take back all tasks of a batch; who is still at work on one is overdue."""
        connection = self._connection
        for task in batch.tasks:
            with self.changed:
                self._tasks.pop(task, None)
            if connection is not None:
                with contextlib.suppress(ConnectionLost):
                    connection.send({"do": "cancel", "task": task})

    def silent_s(self, site: str) -> float:
        """Seconds for which a site has been silent; infinite for one not in this segment.

        From when more than a second had passed in which it should have been heard, and up to when
        nothing was left unread: a sign that waits behind updates is none that failed.
        """
        with self.changed:
            known = self.sites.get(site)
            return max(0.0, self._caught_up_s - self._heard_s(known)) if known else float("inf")

    def _heard_s(self, site: Site) -> float:
        """From when a site's silence counts: of one without work, signs of life are fewer."""
        task = self._tasks.get(site.busy)
        due_s = site.beat_s + (task.beat_s if task else self._idle_beat_s) - QUICK_S
        was_asked = not site.busy and site.asked_s > site.beat_s
        return min(due_s, site.asked_s) if was_asked else due_s

    def stalled_s(self, site: str) -> float:
        """Seconds without progress of a site that gives signs of life; 0 if it reports none."""
        with self.changed:
            known = self.sites.get(site)
            if known is None or not known.progress:
                return 0.0
            return max(0.0, self._caught_up_s - known.moved_s)

    def all_silent(self, patience_s: float) -> bool:
        """Say whether no site can be heard, and some stopped together: that is nobody's fault."""
        with self.changed:
            beats_s = [self._heard_s(site) for site in self.sites.values()]
            return fell_silent_together(beats_s, self._caught_up_s, patience_s)

    def behind_s(self) -> float:
        """Seconds since nothing of what the job has sent was left unread."""
        return self.clock() - self._caught_up_s

    def job_silent_s(self) -> float:
        """Seconds for which the job itself has said nothing, though somebody listened."""
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
        self._listening_s = None  # while it is at work on a message, or waits for room for it
        return message

    def _error_of(
        self, connection: Connection, header: Header, payload: bytes
    ) -> FleetSegError | None:
        """Handle a message; never in silence: who no longer listens would wait for nothing."""
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
        # Of what came, not of what was made of it: both sides' lists have the same digests.
        self._message_log.append(what or "late", name, reply, payload, text=text.encode())
        if asked is not None:
            wanted = b"" if what in _NO_WORK else payload
            asked.batch.put(Event("reply", task, name, reply, wanted, now_s))


def _read_reply(text: str) -> Header:
    """Read the header of a site's reply; one that is none becomes that site's failure."""
    try:
        return read_table(text, max_bytes=MAX_REPLY_HEADER)
    except BadJson as bad:
        return failure_header("refused", "malformed", f"a header that cannot be read: {bad}")


def _log_error(path: Path, error: OSError) -> FleetSegError:
    if is_disk_full(error):
        return disk_full(path, 200)
    return CheckpointError(f"cannot be written ({error.strerror})", where=path)


def fell_silent_together(beats_s: Iterable[float], now_s: float, patience_s: float) -> bool:
    """Say whether nobody can be heard, and at least two stopped at the same time.

    `beats_s` are the last signs of life, -inf of a site that the network has given up.

    >>> fell_silent_together([10.0, 11.0, 2.0], now_s=30.0, patience_s=15.0)
    True
    >>> fell_silent_together([10.0, 29.0], 30.0, 15.0)  # one of them is heard
    False
    >>> fell_silent_together([2.0, 11.0], 30.0, 15.0)  # one after the other
    False
    """
    last = sorted(beats_s)[-2:]
    if len(last) < 2 or now_s - last[1] <= patience_s:
        return False
    return last[0] == last[1] or last[1] - last[0] <= _AT_ONCE_S


def names_of(sites: Mapping[str, Any]) -> str:
    """List names in a text."""
    return ", ".join(sorted(sites)) or "none"
