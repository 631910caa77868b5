"""`fleetseg tune`: the progress of its trials, then their table and the file with the best one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from fleetseg.console import INTERRUPTED, clock, print_error, print_line, ratio, stderr_console
from fleetseg.console import stdout_console as _stdout
from fleetseg.console.signals import interruptible
from fleetseg.console.sweep import watching_sweep
from fleetseg.console.tables import plain_table
from fleetseg.runs.tuning import TABLE, Budget, Tuned, tune


def tune_and_show(
    file: Path | None,
    overrides: Sequence[str],
    *,
    budget: Budget,
    out: Path | None,
    jobs: int,
    resume: bool,
) -> int:
    """Run the trials and show them; return the exit code."""
    console = _stdout()
    with interruptible(), watching_sweep(console) as watcher:
        tuned = tune(
            file, overrides, budget=budget, out=out, jobs=jobs, resume=resume, watcher=watcher
        )
    _show(tuned)
    if tuned.sweep.interrupted:
        again = shlex.join(["fleetseg", "tune", "--resume", "--out", str(tuned.folder)])
        print_line(stderr_console(), f"interrupted; resume with: {again}")
        return INTERRUPTED
    return 0 if tuned.sweep.is_whole and tuned.file is not None else 1


def _show(tuned: Tuned) -> None:
    console = _stdout()
    if tuned.trials:
        table = plain_table(
            "learning rate", "local epochs", "rounds", "images", "mIoU", "critical", "time"
        )
        for one in tuned.trials:
            table.add_row(
                f"{one.lr:g}", str(one.local_epochs), str(one.rounds), f"{one.images:,}",
                ratio(one.miou), ratio(one.critical_miou), clock(one.seconds),
            )  # fmt: skip
        console.print(table)
        print_line(console, "mIoU on held-out ends of the vehicles' own drives, one seed", "dim")
    for note in tuned.notes:
        print_line(console, f"note: {note}", "yellow")
    print_line(console, f"trials     {tuned.folder}")
    if tuned.file is not None:
        print_line(console, f"table      {tuned.folder / TABLE}")
        print_line(console, f"best       {tuned.file}", "bold")
        print_line(console, f"next       fleetseg run {shlex.quote(str(tuned.file))}")
    for run in tuned.sweep.failed:
        print_error(f"{run.planned.name}: {run.why}")
