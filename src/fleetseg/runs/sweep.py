"""`fleetseg.sweep`: many runs of one experiment, several at a time, and then their comparison."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fleetseg.engines.starting import start
from fleetseg.errors import CheckpointError, ConfigError, FleetSegError
from fleetseg.files import write_atomic
from fleetseg.hosts import allowed_cores, given_path
from fleetseg.learning.hardware import hardware_of
from fleetseg.runs.comparable import MAY_DIFFER
from fleetseg.runs.comparison import Comparison, compare
from fleetseg.runs.comparison_files import to_csv, to_markdown
from fleetseg.runs.folder import read_records
from fleetseg.runs.lock import drop_if_empty, new_run_folder, owning
from fleetseg.runs.sweep_file import Sweep, read_sweep
from fleetseg.runs.sweep_job import STOP, SweepJob, job_main
from fleetseg.runs.sweep_plan import PlannedRun, plan
from fleetseg.runs.sweep_state import RunStatus, Statuses, TimeLeft

SWEEP, CSV, MARKDOWN = "sweep.toml", "comparison.csv", "comparison.md"
_TICK_S = 1.0
_LEAVE_S = 30.0

SweepWatcher = Callable[[Statuses, RunStatus | None, float | None], None]
"""Called with all runs, the changed one (None on a mere tick), and the seconds left."""


@dataclass(frozen=True)
class SweepEnd:
    """The result of a sweep; everything else is in its folder."""

    folder: Path
    runs: tuple[RunStatus, ...]
    comparison: Comparison | None  # of the finished runs
    uncompared: str = ""  # why there is no comparison
    interrupted: bool = False  # by Ctrl-C

    @property
    def failed(self) -> tuple[RunStatus, ...]:
        """The runs that failed, each with the reason."""
        return tuple(run for run in self.runs if run.state == "failed")

    @property
    def is_whole(self) -> bool:
        """Whether every run is finished."""
        return all(run.state == "finished" for run in self.runs)


def planned_sweep(
    file: str | Path | None,
    out: Path | None = None,
    overrides: Sequence[str] = (),
) -> tuple[Sweep, tuple[PlannedRun, ...]]:
    """Read a sweep from a file, or the sweep of a folder, and plan its runs.

    Raises:
        CheckpointError: there is neither a file nor a sweep in the folder.
        ConfigError: lists everything that is wrong with any of the runs.
    """
    if file is None:
        if out is None or not (out / SWEEP).is_file():
            raise CheckpointError(
                "there is no sweep to resume",
                where=out,
                expected=SWEEP,
                cure="Name the SWEEP.toml to start it",
            )
        file = out / SWEEP
    sweep = read_sweep(given_path(file), overrides)
    return sweep, plan(sweep)


def sweep(
    file: str | Path | None,
    *,
    out: str | Path | None = None,
    jobs: int = 1,
    resume: bool = False,
    overrides: Sequence[str] = (),
    watcher: SweepWatcher | None = None,
) -> SweepEnd:
    """Run every setting of a sweep file with every seed, each in its own process, and compare them.

    Finished runs are not repeated, interrupted runs resume from their checkpoints, and a failing
    run does not stop the others.

    Args:
        file: the sweep, as TOML; None with `resume`: the sweep in `out`.
        out: the sweep's folder, with a run folder for each run; default `runs/<time>_<name>`.
        jobs: runs at the same time.
        resume: continue the sweep in `out`, if there is one. Its file may list more runs by now.
        overrides: `key=value` for every run, as on the command line.
        watcher: called as runs progress.

    Raises:
        ConfigError: lists everything that is wrong with any of the runs, before the first one
            starts.
        CheckpointError: `out` holds a sweep and `resume` is false, or its sweep is in progress.
    """
    if jobs < 1:
        raise ConfigError("unusable jobs", got=jobs, expected="1 or more")
    if resume and out is None:
        raise CheckpointError("--resume needs --out: the folder of the sweep to resume")
    given = None if out is None else given_path(out)
    described, runs = planned_sweep(file, given, overrides)
    folder = given or new_run_folder(described.name)
    try:
        with owning(folder):
            _require_none(folder, resume)
            work = _Work(folder, runs, jobs, watcher or (lambda *_: None))
            write_atomic(folder / SWEEP, described.to_toml())
            work.all_runs()
            return _compared(folder, work)
    finally:
        if given is None:
            drop_if_empty(folder)


def _require_none(folder: Path, resume: bool) -> None:
    if (folder / SWEEP).exists() and not resume:
        raise CheckpointError(
            "this folder already holds a sweep",
            where=folder,
            cure="Resume it with --resume, or choose another --out",
        )


def _compared(folder: Path, work: _Work) -> SweepEnd:
    runs = tuple(work.statuses.values())
    finished = [folder / run.planned.name for run in runs if run.state == "finished"]
    if not finished:
        return SweepEnd(folder, runs, None, "no run is finished", work.interrupted)
    try:
        comparison = compare(finished, despite=MAY_DIFFER)
    except FleetSegError as error:
        return SweepEnd(folder, runs, None, str(error), work.interrupted)
    write_atomic(folder / CSV, to_csv(comparison))
    write_atomic(folder / MARKDOWN, to_markdown(comparison))
    return SweepEnd(folder, runs, comparison, "", work.interrupted)


@dataclass
class _Work:
    """The processes of a sweep."""

    folder: Path
    runs: Sequence[PlannedRun]
    jobs: int
    watcher: SweepWatcher
    statuses: dict[str, RunStatus] = field(default_factory=dict)
    interrupted: bool = False
    _running: dict[Connection, tuple[str, BaseProcess]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._left = TimeLeft(self.jobs)
        for run in self.runs:
            self.statuses[run.name] = _found(run, self.folder)

    def all_runs(self) -> None:
        """Work until every run has ended; Ctrl-C ends the running ones cleanly."""
        waiting = deque(run for run in self.runs if self.statuses[run.name].state == "waiting")
        self.watcher(self.statuses, None, None)
        try:
            while waiting or self._running:
                while waiting and len(self._running) < self.jobs:
                    self._start(waiting.popleft())
                self._listen()
        except KeyboardInterrupt:
            for pipe in self._running:
                _send_stop(pipe)
            self.interrupted = True
            while self._running:
                self._listen()
            for name, status in self.statuses.items():
                if status.state == "running":  # its process was still starting
                    self._change(name, state="interrupted")

    def _start(self, run: PlannedRun) -> None:
        experiment = run.experiment
        if self.jobs * experiment.engine.threads >= allowed_cores():
            # A loader thread would take its core from another run.
            engine = experiment.engine.model_copy(update={"loaders": 0})
            experiment = experiment.model_copy(update={"engine": engine})
        job = SweepJob(experiment, run.baseline, self.folder / run.name)
        self._change(run.name, state="running", doing="starting")  # the first one takes seconds
        try:
            on_cpu = hardware_of(experiment.engine).device.type == "cpu"
            process, pipe = start(run.name, job_main, job, on_cpu=on_cpu)
        except FleetSegError as error:
            self._change(run.name, state="failed", why=str(error))
            return
        self._running[pipe] = (run.name, process)
        self._left.begin(run.name)
        self._change(run.name, doing="reading data")

    def _listen(self) -> None:
        """Handle the processes' messages; returns after at most a second."""
        ready = wait(list(self._running), timeout=_TICK_S)
        for pipe in ready:
            assert isinstance(pipe, Connection)
            name, process = self._running[pipe]
            try:
                message = json.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                self._gone(pipe)
                continue
            self._take(name, message)
            if message["event"] in ("finished", "failed", "interrupted"):
                del self._running[pipe]
                _let_go(pipe, process)
        if not ready:
            self._changed(None)

    def _take(self, name: str, message: dict[str, Any]) -> None:
        event = message["event"]
        if event == "status":
            self._change(name, doing=message["what"])
        elif event == "round":
            self._left.close_round(name)
            known = self.statuses[name].miou
            miou = known if message["miou"] is None else message["miou"]
            self._change(name, rounds_done=message["round"], miou=miou, doing="")
        elif event == "failed":
            self._change(name, state="failed", why=message["why"])
        elif event == "finished":
            self._change(name, state="finished", miou=message["miou"])
        else:
            self._change(name, state="interrupted")

    def _gone(self, pipe: Connection) -> None:
        """Record that a process ended without a message."""
        name, process = self._running.pop(pipe)
        _let_go(pipe, process)
        code = process.exitcode
        why = f"its process ended with exit code {code}"
        if code is not None and code < 0:
            why = (
                f"its process was killed (signal {-code}), perhaps out of memory: use fewer --jobs"
            )
        self._change(name, state="failed", why=why)

    def _change(self, name: str, **changes: Any) -> None:
        self.statuses[name] = replace(self.statuses[name], **changes)
        self._changed(self.statuses[name])

    def _changed(self, status: RunStatus | None) -> None:
        left_s = self._left.seconds(list(self.statuses.values()))
        self.watcher(self.statuses, status, left_s)


def _found(run: PlannedRun, sweep_folder: Path) -> RunStatus:
    """Return the status that an earlier start of the sweep left for a run."""
    found = run.found_in(sweep_folder)
    if not found:
        return RunStatus(run)
    records = read_records(sweep_folder / run.name)
    miou = next((r["miou"] for r in reversed(records) if r.get("miou") is not None), None)
    status = RunStatus(run, rounds_done=len(records), miou=miou)
    return replace(status, state="finished", was_there=True) if found == "finished" else status


def _let_go(pipe: Connection, process: BaseProcess) -> None:
    """Wait for the process of a finished run; one that does not end must not delay the others."""
    pipe.close()
    process.join(_LEAVE_S)
    if process.is_alive():
        process.kill()
        process.join()


def _send_stop(pipe: Connection) -> None:
    try:
        pipe.send_bytes(STOP)
    except OSError:
        return  # it has already ended
