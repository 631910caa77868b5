"""`fleetseg run --dry-run`: what a run would start with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleetseg.console import count, print_line, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.console.signals import interruptible
from fleetseg.experiment_file import load_experiment
from fleetseg.runs.rehearsal import rehearse


def rehearse_and_show(file: Path, overrides: Sequence[str]) -> None:
    """Do everything before round 1, and print what a run would start with."""
    experiment = load_experiment(file, overrides)
    with interruptible(), reading(stderr_console()) as progress:
        found = rehearse(experiment, progress)
    console = stdout_console()
    for note in found.notes:
        print_line(console, f"note: {note}", "yellow")
    fleet = f"{count(found.clients, 'vehicle')}, {count(found.images, 'image')}"
    scored = f"{count(found.scored, 'image')} to score on" if found.scored else "no set to score on"
    model = f"{experiment.model.name}, {found.parameters / 1e6:.2f} M parameters"
    print_line(console, f"{experiment.name}: {fleet}; {scored}; {model}")
    print_line(console, "one step was taken and one image scored: this experiment can run", "bold")
