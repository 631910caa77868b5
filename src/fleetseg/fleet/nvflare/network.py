"""NVFlare on the server's machine: keeps its process alive and one job after another running.

NVFlare ends a job for all vehicles when one vehicle's part of it crashes, never resumes a job, and
its job status is not reliable. So no state of ours is in a job: this thread submits the next one as
soon as the last is gone, and `FleetEngine` continues where it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetseg.errors import EngineError, FleetSegError
from fleetseg.files import disk_full, write_atomic
from fleetseg.fleet.nvflare.job import write_job
from fleetseg.fleet.nvflare.names import LINK_VARIABLE
from fleetseg.fleet.nvflare.pace import answer_timeout_s
from fleetseg.fleet.nvflare.provision import OPERATOR, Fleet, read_fleet, write_server_settings
from fleetseg.fleet.nvflare.sites import WITNESSED
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.quarantine import Quarantine
from fleetseg.fleet.server.segments import Segments
from fleetseg.fleet.subprocesses import (
    cpu_seconds,
    kill_descendants,
    kill_orphans,
    rotate_log,
    start_child,
    stop,
)
from fleetseg.fleet.threads import start_thread
from fleetseg.text import plain

_POLL_S = 0.25
_LEAST_FREE = 1 << 18  # bytes of disk space, for logs
_INFO_S = 2.0  # between two queries of the registered sites
_START_S = 60.0  # for a submitted job to connect, before it is submitted again
_FRESH_S = 15.0  # NVFlare's heartbeats come every 10 s
_HUNG_S = 45.0  # a server that has answered before and is silent for this long is restarted,
_BUSY_S = 600.0  # or for this long if it is at work: hundreds of vehicles may register at once
_BUSY_SHARE = 0.2  # of a core; idle vehicles, which other threads answer, take less
_LOG_TAIL = 1 << 16  # bytes
_QUIET = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "GRPC_VERBOSITY": "NONE"}


class NvflareNetwork:
    """A `Network`; use it as a context manager."""

    def __init__(
        self,
        fleet: Fleet,
        dispatcher: TaskDispatcher,
        socket: Path,
        expected_s: float,
        silent_s: float = 15.0,
        log: Path | None = None,
    ) -> None:
        self._fleet, self._dispatcher = fleet, dispatcher
        self._job_patience_s = 2 / 3 * silent_s  # before its silence could count as the vehicles'
        self._answered_s: float | None = None  # when the server last answered since its start
        self._answered_cpu_s = 0.0  # its processor time then
        self._environment = {**_QUIET, LINK_VARIABLE: str(socket)}
        # A path without blanks: a submission is a line of text.
        self._segment = socket.parent / "segment"
        self._expected_s = expected_s  # how long to wait for all vehicles before the first job
        self._process: Any = None
        self._start = 0  # number of the server's start; a session belongs to one
        self._session: Any = None
        self._session_start = 0
        self._job, self._submitted_s = "", 0.0
        kept = None if log is None else log.with_name("quarantine.json")
        self._quarantine = Quarantine(time.monotonic, kept)
        self._segments = Segments(dispatcher, self._quarantine, log)
        self._registered: dict[str, float] = {}  # site -> time of its last heartbeat
        self._looked_s = self._began_s = 0.0
        self._trouble = "the server is starting"
        self._fatal: FleetSegError | None = None
        self._revoked: frozenset[str] = frozenset(fleet.revoked)
        self._disabled: set[str] = set()  # those disabled in NVFlare
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> NvflareNetwork:
        """Start the server."""
        # Two threads, because a call to a server that has just died may take seconds to fail.
        self._threads = [
            start_thread(self._keep_server, "fleetseg-server", self._fail),
            start_thread(self._keep_job, "fleetseg-job", self._fail),
        ]
        return self

    def __exit__(self, *exc: object) -> None:
        """End the job and the server."""
        self._over.set()
        self._dispatcher.end_segment()
        for thread in self._threads:
            thread.join(timeout=20)

    def trouble(self) -> str:
        """See fleet.Network."""
        return self._trouble

    def registered(self) -> Mapping[str, float]:
        """Return the connected sites -> seconds since their last heartbeat."""
        now = time.time()
        return {name: now - seen for name, seen in self._registered.items()}

    def fatal(self) -> FleetSegError | None:
        """See fleet.Network."""
        return self._fatal

    def quarantined(self) -> Mapping[str, str]:
        """See fleet.Network."""
        return self._quarantine.reasons()

    def _fail(self, error: FleetSegError) -> None:
        self._fatal = self._fatal or error

    def expected(self) -> frozenset[str]:
        """See fleet.Network."""
        return frozenset(self._fleet.active) - self._quarantine.sites()

    def returned(self) -> frozenset[str]:
        """See fleet.Network."""
        fresh = {name for name, age_s in self.registered().items() if age_s < _FRESH_S}
        fresh -= self._quarantine.sites()
        return frozenset(name for name in fresh if self._dispatcher.silent_s(name) > _FRESH_S)

    def revoked(self) -> frozenset[str]:
        """See fleet.Network."""
        return self._revoked

    # The server's process, which dies with this thread

    def _keep_server(self) -> None:
        try:
            while not self._over.is_set():
                if self._process is None or self._process.poll() is not None:
                    self._start_server()
                self._end_what_hangs()
                rotate_log(self._fleet.server / "console.log")
                self._over.wait(_POLL_S)
        except OSError as error:
            raise EngineError(f"the server cannot be started ({error})") from None
        finally:
            if self._process is not None:
                stop(self._process, patience_s=3.0)

    def _start_server(self) -> None:
        if self._process is not None:
            stop(self._process, patience_s=0)
            self._dispatcher.drop()  # its job ends with it, but later
            self._over.wait(1.0)
        _fresh_server(self._fleet)
        self._registered, self._began_s = {}, time.monotonic()
        self._trouble, self._answered_s = "the server is starting", None
        self._process = start_child(
            server_command(self._fleet.server),
            log=self._fleet.server / "console.log",
            environment=self._environment,
            cwd=self._fleet.server,
        )
        self._start += 1

    def _end_what_hangs(self) -> None:
        """Kill processes that hang: they are then handled as if they had died.

        Nothing in NVFlare would notice: its own monitors wait for processes to end.
        """
        clock, job = self._dispatcher.clock, self._dispatcher.job
        if job and self._dispatcher.job_silent_s() > self._job_patience_s:
            self._trouble = "the engine's job hangs; a new one replaces it"
            kill_descendants(self._process.pid, job)
            self._dispatcher.drop()
        if self._answered_s is not None and clock() - self._answered_s > _HUNG_S:
            silent_s = clock() - self._answered_s
            worked_s = cpu_seconds(self._process.pid) - self._answered_cpu_s
            if silent_s < _BUSY_S and worked_s > _BUSY_SHARE * silent_s:
                self._trouble = "the server's process is too busy to answer"
                return
            self._trouble = "the server's process hangs; it is being restarted"
            stop(self._process, patience_s=0)

    # The job, through a session with the server

    def _keep_job(self) -> None:
        while not self._over.wait(_POLL_S):
            try:
                _require_room(self._fleet.server)
                self._connect()
                self._refresh_registered()
                self._keep_revoked()
                self._submit_if_due()
            except FleetSegError as error:
                self._fatal = error
            except Exception as error:  # whatever NVFlare raises: try again in the next iteration
                self._trouble = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                self._close_session()
        self._close_session()

    def _connect(self) -> None:
        if self._session_start != self._start:
            self._close_session()
            self._job, self._submitted_s, self._disabled = "", 0.0, set()
            self._segments.forget()  # it ended with NVFlare's server: no site's fault
        if self._session is None:
            self._session_start = self._start
            self._session = _open_session(self._fleet)

    def _refresh_registered(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s >= (_INFO_S if self._dispatcher.job else _POLL_S):
            self._looked_s = now_s
            info = self._session.get_system_info()
            self._answered_s = self._dispatcher.clock()
            self._answered_cpu_s = cpu_seconds(self._process.pid)
            self._registered = {c.name: c.last_connect_time for c in info.client_info}

    def _keep_revoked(self) -> None:
        self._fleet = read_fleet(self._fleet.folder)  # vehicles may have been added, too
        # A name that is not in the list has a certificate of which this folder has no record.
        unknown = set(self._registered) - set(self._fleet.vehicles)
        revoked = frozenset(self._fleet.revoked) | unknown
        self._revoked = revoked  # the engine refuses them from here on
        for name in revoked - self._disabled:
            self._session.disable_client(name)  # and this keeps them from coming back
            self._disabled.add(name)
        # An unknown name disappears once it is refused, and has to stay refused.
        for name in (self._disabled - revoked) & set(self._fleet.vehicles):
            self._session.enable_client(name)
            self._disabled.discard(name)

    def _submit_if_due(self) -> None:
        now_s = time.monotonic()
        if self._dispatcher.job:
            self._job, self._submitted_s, self._trouble = self._dispatcher.job, 0.0, ""
            self._began_s = now_s
            return
        if self._segments.is_open and not self._judge_last(now_s):
            return
        missing = set(self._fleet.active) - set(self._registered) - self._quarantine.sites()
        waited_s = now_s - self._began_s
        if not self._registered or (missing and waited_s < self._expected_s):
            self._trouble = f"waiting for {', '.join(sorted(missing)[:5])}"
            return
        if self._job:
            _ignoring_errors(lambda: self._session.abort_job(self._job))
        sites = self._segments.deployed_to(self._registered, self._revoked)
        self._segments.begin(sites)
        self._submitted_s = time.monotonic()
        try:
            self._job = self._session.submit_job(str(write_job(self._segment, sites)))
        except Exception:
            self._segments.forget()
            raise
        self._trouble = "the engine's job is starting"

    def _judge_last(self, now_s: float) -> bool:
        """Judge the last job, if it has ended; returns whether the next one is due."""
        if not self._segments.has_connected and not self._ended():
            if now_s - self._submitted_s >= _START_S:  # its fate is unknown
                self._segments.forget()
            return not self._segments.is_open
        log = self._fleet.server / "console.log"
        witnessed = read_witnessed(self._fleet.server / WITNESSED, self._job)
        self._submitted_s = 0.0
        self._segments.end(self._job, witnessed, log, last_words(log))
        return True

    def _ended(self) -> bool:
        status = str(self._session.get_job_meta(self._job).get("status", ""))
        return status.startswith("FINISHED")

    def _close_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            # Logging out waits for a server that may be gone.
            closer = threading.Thread(target=_ignoring_errors, args=(session.close,), daemon=True)
            closer.start()
            closer.join(timeout=1)


def _require_room(folder: Path) -> None:
    """Raise if the disk is full: NVFlare would keep running but answer no one."""
    if shutil.disk_usage(folder).free < _LEAST_FREE:
        raise disk_full(folder, _LEAST_FREE)


def _ignoring_errors(action: Any) -> None:
    with contextlib.suppress(Exception):
        action()


def server_command(folder: Path) -> list[str]:
    """Return the command of NVFlare's server process."""
    module = "nvflare.private.fed.app.server.server_train"
    return [
        *(sys.executable, "-u", "-m", module, "-m", str(folder), "-s", "fed_server.json"),
        *("--set", "secure_train=true", "config_folder=config", "org=fleet"),
    ]


def client_command(kit: Path, name: str) -> list[str]:
    """Return the command of NVFlare's client process."""
    module = "nvflare.private.fed.app.client.client_train"
    return [
        *(sys.executable, "-u", "-m", module, "-m", str(kit), "-s", "fed_client.json"),
        *("--set", "secure_train=true", f"uid={name}", "org=fleet", "config_folder=config"),
    ]


def _fresh_server(fleet: Fleet) -> None:
    """Delete NVFlare's jobs of earlier starts: a job that died is reported as running for ever."""
    kill_orphans("nvflare.", fleet.server)
    write_server_settings(fleet)
    for name in ("jobs", "snapshots", "transfer"):
        shutil.rmtree(fleet.server / name, ignore_errors=True)
    (fleet.server / WITNESSED).unlink(missing_ok=True)
    for path in fleet.server.iterdir():
        is_job = len(path.name) == 36 and path.name.count("-") == 4  # a UUID
        if path.is_dir() and is_job:
            shutil.rmtree(path, ignore_errors=True)
    revoked = {"disabled_clients": sorted(read_fleet(fleet.folder).revoked)}
    write_atomic(fleet.server / "disabled_clients.json", json.dumps(revoked) + "\n")


def _open_session(fleet: Fleet) -> Any:
    from nvflare.fuel.flare_api.flare_api import Session

    logging.getLogger("nvflare").setLevel(logging.CRITICAL)
    session = Session(OPERATOR, str(fleet.operator))
    timeout_s = answer_timeout_s(len(fleet.vehicles))
    session.set_timeout(timeout_s)
    session.api._print_hci = lambda text: None  # keeps it from printing into the live table
    try:
        session.try_connect(timeout_s)
    except BaseException:
        _ignoring_errors(session.close)
        raise
    return session


def read_witnessed(path: Path, job: str) -> Mapping[str, str]:
    """Return the sites that made a job end, and why; empty if none was observed."""
    found = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                fields = json.loads(line)
                if fields["job"] == job:
                    found[str(fields["site"])] = str(fields["reason"])
    return found


def last_words(log: Path) -> str:
    """Return the last line of a log that reports an error, else its last line."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return "nothing in the log"
    lines = [line.strip() for line in lines if line.strip()]
    notable = [line for line in lines if " - INFO - " not in line and " - DEBUG - " not in line]
    wrong = [line for line in notable if re.search(r"error|exception|denied", line, re.I)]
    return plain((wrong or lines or ["nothing in the log"])[-1], 300)
