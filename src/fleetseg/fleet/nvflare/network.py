"""NVFlare on the server's machine: its process kept alive, one job after another kept running.

NVFlare ends a job for all when one vehicle's part of it crashes, never resumes one, and its job
status is not the truth. So nothing of ours lives in a job: this thread submits the next one as soon
as the last is gone, and `FleetEngine` goes on where it was.
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
from fleetseg.fleet.nvflare.names import LINK_VARIABLE
from fleetseg.fleet.nvflare.provision import OPERATOR, Fleet, read_fleet, write_server_settings
from fleetseg.fleet.nvflare.sites import CONTROLLER, EXECUTOR
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.subprocesses import kill_descendants, kill_orphans, start_child, stop
from fleetseg.text import plain

_POLL_S = 0.25
_LEAST_FREE = 1 << 18  # bytes, for logs
_INFO_S = 2.0  # between two looks at who is registered
_START_S = 60.0  # for a submitted job to connect, before it is submitted again
_FRESH_S = 15.0  # NVFlare's heartbeats come every 10 s
_FETCH_S = 0.1  # between two questions of a vehicle for tasks
_MOST_FAILED_STARTS = 6
_HUNG_S = 45.0  # no answer from a server that has answered before: it is started again
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
    ) -> None:
        self._fleet, self._dispatcher = fleet, dispatcher
        self._job_patience_s = 2 / 3 * silent_s  # before its silence is taken for the vehicles'
        self._answered_s: float | None = None  # when this start of the server last answered
        self._environment = {**_QUIET, LINK_VARIABLE: str(socket)}
        self._segment = socket.parent / "segment"  # in a plain path: a submission is a line of text
        self._expected_s = expected_s  # how long to wait for all vehicles before the first job
        self._process: Any = None
        self._start = 0  # of the server; a session belongs to one
        self._session: Any = None
        self._session_start = 0
        self._job, self._submitted_s = "", 0.0
        self._failed_starts = 0  # jobs in a row that ended before they connected
        self._registered: dict[str, float] = {}  # site -> time of its last heartbeat
        self._looked_s = self._began_s = 0.0
        self._trouble = "the server is starting"
        self._fatal: FleetSegError | None = None
        self._revoked: frozenset[str] = frozenset(fleet.revoked)
        self._disabled: set[str] = set()  # those that NVFlare knows of
        self._over = threading.Event()
        # Two threads: a call to a server that has just died may take seconds to fail.
        self._threads = [
            threading.Thread(target=self._keep_server, name="fleetseg-server", daemon=True),
            threading.Thread(target=self._keep_job, name="fleetseg-job", daemon=True),
        ]

    def __enter__(self) -> NvflareNetwork:
        """Start the server."""
        for thread in self._threads:
            thread.start()
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
        """Sites that are connected -> seconds since their last heartbeat."""
        now = time.time()
        return {name: now - seen for name, seen in self._registered.items()}

    def fatal(self) -> FleetSegError | None:
        """See fleet.Network."""
        return self._fatal

    def expected(self) -> frozenset[str]:
        """See fleet.Network."""
        return frozenset(self._fleet.active)

    def returned(self) -> frozenset[str]:
        """See fleet.Network."""
        fresh = {name for name, age_s in self.registered().items() if age_s < _FRESH_S}
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
                self._over.wait(_POLL_S)
        except FleetSegError as error:
            self._fatal = error
        except OSError as error:
            self._fatal = EngineError(f"the server cannot be started ({error})")
        finally:
            if self._process is not None:
                stop(self._process, patience_s=3.0)

    def _start_server(self) -> None:
        if self._process is not None:
            stop(self._process, patience_s=0)
            self._dispatcher.drop()  # its job goes with it, only later
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
        """Kill what neither ends nor goes on: from there it is as if it had died.

        Of NVFlare nobody else would notice: its own watches wait for processes to end.
        """
        clock, job = self._dispatcher.clock, self._dispatcher.job
        if job and self._dispatcher.job_silent_s() > self._job_patience_s:
            self._trouble = "the engine's job has stopped; another takes its place"
            kill_descendants(self._process.pid, job)
            self._dispatcher.drop()
        if self._answered_s is not None and clock() - self._answered_s > _HUNG_S:
            self._trouble = "the server's process has stopped; it is started again"
            stop(self._process, patience_s=0)

    # The job, by way of a session with the server

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
            except Exception as error:  # whatever NVFlare raises: the next turn tries again
                self._trouble = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                self._close_session()
        self._close_session()

    def _connect(self) -> None:
        if self._session_start != self._start:
            self._close_session()
            self._job, self._submitted_s, self._disabled = "", 0.0, set()
        if self._session is None:
            self._session_start = self._start
            self._session = _open_session(self._fleet)

    def _refresh_registered(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s >= (_INFO_S if self._dispatcher.job else _POLL_S):
            self._looked_s = now_s
            info = self._session.get_system_info()
            self._answered_s = self._dispatcher.clock()
            self._registered = {c.name: c.last_connect_time for c in info.client_info}

    def _keep_revoked(self) -> None:
        self._fleet = read_fleet(self._fleet.folder)  # vehicles may have been added, too
        # A name that is not in the list has a certificate that nobody here remembers making.
        unknown = set(self._registered) - set(self._fleet.vehicles)
        revoked = frozenset(self._fleet.revoked) | unknown
        self._revoked = revoked  # the engine refuses them from here on
        for name in revoked - self._disabled:
            self._session.disable_client(name)  # and this keeps them from coming back
            self._disabled.add(name)

    def _submit_if_due(self) -> None:
        now_s = time.monotonic()
        if self._dispatcher.job:
            self._job, self._submitted_s, self._trouble = self._dispatcher.job, 0.0, ""
            self._began_s, self._failed_starts = now_s, 0
            return
        if self._submitted_s:
            ended = self._ended()
            if now_s - self._submitted_s < _START_S and not ended:
                return
            self._count_failed_start(ended)
        missing = set(self._fleet.active) - set(self._registered)
        waited_s = now_s - self._began_s
        if not self._registered or (missing and waited_s < self._expected_s):
            self._trouble = f"waiting for {', '.join(sorted(missing)[:5])}"
            return
        if self._job:
            _ignoring_errors(lambda: self._session.abort_job(self._job))
        self._job = self._session.submit_job(str(_job_folder(self._segment)))
        self._submitted_s = time.monotonic()
        self._trouble = "the engine's job is starting"

    def _count_failed_start(self, ended: bool) -> None:
        """Give up where one job after another ends before it connects: time does not mend that."""
        self._submitted_s = 0.0
        self._failed_starts = self._failed_starts + 1 if ended else 0
        if self._failed_starts >= _MOST_FAILED_STARTS:
            log = self._fleet.server / "console.log"
            raise EngineError(
                f"the engine's job ended {self._failed_starts} times in a row before it connected",
                where=log,
                got=last_words(log),
                cure="Mend what the log says, then go on with --resume",
            )

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
    """Raise where the disk is full: NVFlare would go on and answer nobody."""
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
    """Forget NVFlare's jobs of earlier starts: one that died is called running for ever."""
    kill_orphans("nvflare.", fleet.server)
    write_server_settings(fleet)
    for name in ("jobs", "snapshots", "transfer"):
        shutil.rmtree(fleet.server / name, ignore_errors=True)
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
    session.set_timeout(5.0)
    session.api._print_hci = lambda text: None  # it would print into the live table
    try:
        session.try_connect(5.0)
    except BaseException:
        _ignoring_errors(session.close)
        raise
    return session


def last_words(log: Path) -> str:
    """Return the last line of a log that reports an error, else its last one."""
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


def _job_folder(folder: Path) -> Path:
    """Write the job: two class names and no code, the same for every segment of every run."""
    config = folder / "app" / "config"
    config.mkdir(parents=True, exist_ok=True)
    patience = {
        "get_task_timeout": 60.0,
        "submit_task_result_timeout": 600.0,
        "task_check_interval": 1.0,
        "task_check_timeout": 10.0,
        "job_heartbeat_interval": 10,
        "dead_client_grace_period": 30,
        "dead_client_check_lead_time": 10,
    }
    server = {
        "format_version": 2,
        "server": {"task_request_interval": _FETCH_S},
        "task_request_interval": _FETCH_S,
        **patience,
        "workflows": [{"id": "fleet", "path": CONTROLLER, "args": {}}],
        "components": [],
    }
    client = {
        "format_version": 2,
        **patience,
        "executors": [{"tasks": ["*"], "executor": {"path": EXECUTOR, "args": {}}}],
        "components": [],
    }
    meta = {
        "name": "segment",
        "resource_spec": {},
        "min_clients": 1,
        "deploy_map": {"app": ["@ALL"]},
    }
    for path, fields in (
        (folder / "meta.json", meta),
        (config / "config_fed_server.json", server),
        (config / "config_fed_client.json", client),
    ):
        write_atomic(path, json.dumps(fields, indent=1) + "\n")
    return folder
