"""`fleetseg server`: train a fleet over a network, show it, and say how to resume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetseg import api
from fleetseg.config import Experiment
from fleetseg.console import INTERRUPTED, count, print_line, stderr_console, stdout_console
from fleetseg.console.live import Heading
from fleetseg.console.report import end_with_page
from fleetseg.console.run import asked_words, output_style, resume_command, shown
from fleetseg.console.signals import interruptible
from fleetseg.console.summary import exit_code, show_end
from fleetseg.errors import FleetSegError, FolderInUse
from fleetseg.experiment_file import load_experiment
from fleetseg.fleet.nvflare.provision import Fleet, read_fleet
from fleetseg.fleet.watchdog import following_this_thread
from fleetseg.runs.folder import has_run


def serve_and_show(
    file: Path,
    overrides: Sequence[str],
    *,
    fleet: Path,
    out: Path | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
    metrics_port: int = 0,
) -> int:
    """Run as a fleet's server, show the result, and return the exit code."""
    known, experiment = read_fleet(fleet), load_experiment(file, overrides)
    out = out or Path("runs") / experiment.name
    words = ["server", "--fleet", str(fleet), str(file)]
    words += ["--metrics-port", str(metrics_port)] if metrics_port else []
    command = resume_command(words, overrides, out)
    console = stdout_console()
    style = output_style(console, as_json=as_json, quiet=quiet)
    with interruptible(), following_this_thread():
        try:
            with shown(style, console, lambda: _heading(experiment, known), experiment) as watched:
                run = api.serve(
                    experiment,
                    known.folder,
                    out=out,
                    resume=resume,
                    metrics_port=metrics_port,
                    **watched,
                )
        except KeyboardInterrupt:
            print_line(stderr_console(), "interrupted before the first round")
            return INTERRUPTED
        except FolderInUse:
            raise
        except FleetSegError:
            if has_run(out):
                print_line(stderr_console(), f"resume with: {command}", "dim")
            raise
        show_end(run, style, console)
        end_with_page([run.folder], console, silent=style in ("json", "quiet"))
    if run.reason != "interrupted":
        return exit_code([run])
    print_line(stderr_console(), f"interrupted; resume with: {command}")
    return INTERRUPTED


def _heading(experiment: Experiment, fleet: Fleet) -> Heading:
    vehicles = len(fleet.active)
    asked = asked_words(experiment.federation.cohort, vehicles)
    where = f"fleet of {count(vehicles, 'vehicle')}"
    return Heading(f"{experiment.name} · {where} · {asked} · {experiment.model.name}", vehicles)
