"""One run of a sweep, in its own process: it reports events and ends on request."""

from __future__ import annotations

import _thread
import json
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fleetseg.clients import open_fleet_data
from fleetseg.config import Experiment
from fleetseg.errors import FleetSegError, FolderInUse
from fleetseg.federation import rounds
from fleetseg.federation.records import RoundRecord
from fleetseg.files import explained, write_atomic
from fleetseg.runs import baselines
from fleetseg.runs.lock import owning
from fleetseg.runs.run import Run, run_experiment

STOP = b"stop"
TRACEBACK = "traceback.txt"
_PATIENCE_S = 15.0  # to wait until the process of a killed sweep has left its run folder

Notify = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class SweepJob:
    """What a process runs, and where."""

    experiment: Experiment
    baseline: str
    folder: Path


def job_main(job: SweepJob, pipe: Connection) -> None:
    """Run or resume one run; the last message says how it ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(job.experiment.engine.threads)

    def notify(message: dict[str, Any]) -> None:
        with suppress(OSError):  # the sweep is gone, and `_obey` ends this process
            pipe.send_bytes(json.dumps(message).encode())

    try:  # "stop" may have come already, and arrive while the thread still starts
        threading.Thread(target=_obey, args=(pipe,), daemon=True).start()
        ended = _outcome(job, notify)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended: too late to be interrupted
    except KeyboardInterrupt:
        ended = {"event": "interrupted"}
    notify(ended)


def _obey(pipe: Connection) -> None:
    """Wait for the sweep's request to stop; if the sweep dies, end this process at once.

    A run that loses its process resumes from its checkpoint; one that outlived its sweep would
    prevent the folder from being resumed.
    """
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
    _thread.interrupt_main()


def _outcome(job: SweepJob, notify: Notify) -> dict[str, Any]:
    (job.folder / TRACEBACK).unlink(missing_ok=True)  # of an earlier try
    try:
        run = _train(job, notify)
    except Exception as error:
        told = _told(error)
        if told is None:
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"
            with suppress(OSError, FleetSegError):
                write_atomic(job.folder / TRACEBACK, traceback.format_exc())
        return {"event": "failed", "why": told}
    if run.reason == "interrupted":
        return {"event": "interrupted"}
    if run.reason == rounds.UNUSED:
        return {"event": "failed", "why": f"no update was used: {rounds.why_unused(run.records)}"}
    return {"event": "finished", "miou": run.miou}


def _told(error: Exception) -> str | None:
    """Return the message of an error that the user can fix; None for a bug."""
    if isinstance(error, FleetSegError):
        return str(error)
    known = explained(error) if isinstance(error, OSError) else None
    return None if known is None else str(known)


def _train(job: SweepJob, notify: Notify) -> Run:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with owning(job.folder) as owned:
                experiment, data = job.experiment, open_fleet_data(job.experiment)
                if job.baseline:
                    experiment, data = baselines.centralised(experiment, data)
                watcher = _watcher(notify)
                return run_experiment(
                    experiment, data, job.folder, resume=True, watcher=watcher, owned=owned
                )
        except FolderInUse:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _watcher(notify: Notify) -> rounds.Watcher:
    def status(what: str) -> None:
        notify({"event": "status", "what": what})

    def closed(record: RoundRecord) -> None:
        notify({"event": "round", "round": record.round, "miou": record.miou})

    return rounds.Watcher(status, round_closed=closed)
