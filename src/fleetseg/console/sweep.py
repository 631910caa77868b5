"""`fleetseg sweep`: the progress of its runs, then their comparison and the failures."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from fleetseg.console import (
    INTERRUPTED,
    clock,
    count,
    print_error,
    print_line,
    ratio,
    stderr_console,
    stdout_console,
)
from fleetseg.console.comparison import show_comparison
from fleetseg.console.signals import interruptible
from fleetseg.runs.sweep import CSV, MARKDOWN, SweepEnd, SweepWatcher, planned_sweep, sweep
from fleetseg.runs.sweep_state import RunStatus, State, Statuses, counts

_STATES: tuple[State, ...] = ("finished", "running", "waiting", "failed", "interrupted")


def sweep_and_show(
    file: Path | None,
    *,
    out: Path | None,
    jobs: int,
    resume: bool,
    overrides: Sequence[str],
) -> int:
    """Run a sweep and show it; return the exit code."""
    console = stdout_console()
    with interruptible(), watching_sweep(console) as watcher:
        end = sweep(file, out=out, jobs=jobs, resume=resume, overrides=overrides, watcher=watcher)
    _show_end(end, console)
    if end.interrupted:
        again = shlex.join(["fleetseg", "sweep", "--resume", "--out", str(end.folder)])
        print_line(stderr_console(), f"interrupted; resume with: {again}")
        return INTERRUPTED
    return 0 if end.is_whole and end.comparison else 1


def show_plan(file: Path | None, *, out: Path | None, overrides: Sequence[str]) -> None:
    """List the runs of a sweep and what exists of them; nothing is run."""
    described, runs = planned_sweep(file, out, overrides)
    console = stdout_console()
    for run in runs:
        found = (run.found_in(out) if out else "") or "to run"
        kind = f", {run.baseline}" if run.baseline else ""
        rounds = count(run.experiment.federation.rounds, "round")
        print_line(console, f"{found:<9} {run.name}  ({rounds}{kind})")
    print_line(console, f"{count(len(runs), 'run')} of {described.name}")


@contextmanager
def watching_sweep(console: Console) -> Iterator[SweepWatcher]:
    """Show the progress of a sweep's runs within the block."""
    if not console.is_terminal:
        yield _PlainLines(console).changed
        return
    screen = _Screen()
    with Live(screen, console=console, refresh_per_second=4, transient=True):
        yield screen.changed


def summary_line(statuses: Statuses, left_s: float | None) -> str:
    """Format how many runs are in each state, and the time left."""
    number = counts(statuses)
    parts = [f"{number[state]} {state}" for state in _STATES if number[state]]
    left = "" if left_s is None or not number["running"] else f", about {clock(left_s)} left"
    return f"{count(len(statuses), 'run')}: {', '.join(parts)}{left}"


def status_line(status: RunStatus) -> str:
    """Describe the state of a run."""
    miou = "" if status.miou is None else f", mIoU {ratio(status.miou)}"
    rounds = f"{status.rounds_done}/{status.rounds} rounds{miou}"
    told = {"failed": status.why, "running": status.doing}.get(status.state) or rounds
    return f"{status.state:<11} {status.planned.name}: {told}"


class _PlainLines:
    """One line for each run that begins or ends, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}

    def changed(self, statuses: Statuses, status: RunStatus | None, left_s: float | None) -> None:
        if status is None:
            if not self._states:
                self._begin(statuses)
            return
        name = status.planned.name
        if self._states.get(name) != status.state:
            self._states[name] = status.state
            line = f"{status_line(status)}  ({summary_line(statuses, left_s)})"
            print_line(self._console, line)

    def _begin(self, statuses: Statuses) -> None:
        self._states = {name: status.state for name, status in statuses.items()}
        print_line(self._console, summary_line(statuses, None))


class _Screen:
    """The runs in progress, and a line about all runs, redrawn repeatedly."""

    def __init__(self) -> None:
        self._lines: list[Text] = []

    def changed(self, statuses: Statuses, status: RunStatus | None, left_s: float | None) -> None:
        styles = {"running": "", "failed": "red"}
        shown = [s for s in statuses.values() if s.state in styles]
        self._lines = [Text(summary_line(statuses, left_s), "bold")]
        self._lines += [Text(status_line(s), styles[s.state]) for s in shown]

    def __rich__(self) -> RenderableType:
        """Draw the current state."""
        for line in self._lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*self._lines)


def _show_end(end: SweepEnd, console: Console) -> None:
    if end.comparison is not None:
        show_comparison(end.comparison, console)
        console.print()
    print_line(console, summary_line({run.planned.name: run for run in end.runs}, None))
    print_line(console, f"sweep        {end.folder}")
    if end.comparison is not None:
        print_line(console, f"comparison   {end.folder / CSV}, {end.folder / MARKDOWN}")
    elif not end.interrupted:
        print_error(f"not compared: {end.uncompared}")
    for run in end.failed:
        print_error(f"{run.planned.name}: {run.why}")
