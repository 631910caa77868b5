"""`fleetseg fleet publish`: which vehicles drive a release now, and which do not."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import typer
from rich.text import Text

from fleetseg.console import count, print_line, stderr_console, stdout_console
from fleetseg.release.to_vehicles import Published, publish_to_vehicles

INCOMPLETE = 3
"""Exit code where not every vehicle drives the release; 1 is an error, 2 a wrong command."""


def publish_and_show(
    models: Path, number: int | None, fleet: Path, wait_s: float, *, as_json: bool
) -> int:
    """Publish a release, show who drives it, and return the exit code: 0 = all, INCOMPLETE."""
    console = stderr_console()
    published = publish_to_vehicles(
        models, number, fleet, wait_s=wait_s, tell=lambda text: print_line(console, text, "dim")
    )
    if as_json:
        typer.echo(json.dumps(asdict(published)))
    else:
        _show(published, fleet)
    return 0 if published.is_complete else INCOMPLETE


def _show(published: Published, fleet: Path) -> None:
    console, number = stdout_console(), f"{published.number:04d}"
    drivers = count(len(published.drives), "vehicle")
    verb = "drives" if len(published.drives) == 1 else "drive"
    print_line(console, Text.assemble((f"release {number}: ", "bold"), f"{drivers} {verb} it"))
    for name, why in sorted(published.refused.items()):
        print_line(console, f"{name} refuses it: {why}", "red")
    for name, why in sorted(published.missing.items()):
        print_line(console, f"{name}: {why}", "yellow")
    if published.missing:
        words = "the running server keeps handing it out" if published.server_runs else (
            "they get it from this fleet's next server, or when it is published again")  # fmt: skip
        print_line(console, f"{words}; see: fleetseg fleet status --fleet "
                   f"{shlex.quote(str(fleet))}", "dim")  # fmt: skip
