"""`fleetseg scenario`: list, show and make scenarios."""

from __future__ import annotations

import dataclasses
import json
import shlex
import statistics

import typer

from fleetseg.console import count, print_line, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.console.tables import name_cell, plain_table
from fleetseg.data.partition.rules import RULES
from fleetseg.data.partition.scenarios import SCENARIOS, Scenario, find_scenario
from fleetseg.runs.scenario_files import Made, Wanted, make_scenario


def list_scenarios(*, as_json: bool) -> None:
    """List all scenarios."""
    if as_json:
        typer.echo(
            json.dumps({name: dataclasses.asdict(scenario) for name, scenario in SCENARIOS.items()})
        )
        return
    table = plain_table("scenario", "data", "clients", "rule", left=("scenario", "data", "rule"))
    for name, scenario in SCENARIOS.items():
        clients = str(scenario.settings.clients)
        table.add_row(name_cell(name), scenario.kind, clients, scenario.rule)
    console = stdout_console()
    console.print(table)
    print_line(console, "more of one: fleetseg scenario show NAME", "dim")


def show_scenario(name: str, *, as_json: bool) -> None:
    """Describe a scenario and how to make it."""
    scenario = find_scenario(name)
    if as_json:
        typer.echo(json.dumps({"name": name, **dataclasses.asdict(scenario)}))
        return
    console, published = stdout_console(), scenario.published
    lines = {
        "about": scenario.about,
        "data": scenario.kind + _drives(scenario),
        "classes": scenario.label_space or "–",
        "clients": str(scenario.settings.clients),
        "rule": f"{scenario.rule}: {RULES[scenario.rule].about}",
        "looks at": RULES[scenario.rule].needs or "nothing of the images",
    }
    if published is not None:
        where = f", {published.folder}/" if published.folder else ", not in its repository"
        lines["published"] = f"{published.clients} clients, {published.images:,} images{where}"
    for key, text in lines.items():
        print_line(console, f"{key:<10} {text}")
    root = f" --root {scenario.kind.upper()}" if scenario.needs_root else ""
    make = f"fleetseg scenario make {name}{root} --out {name}.toml"
    print_line(console, f"make it    {make}")
    if published is not None and published.folder:
        print_line(console, f"           {make} --from SPLITS/{published.folder}")


def make_and_show(wanted: Wanted, *, as_json: bool) -> None:
    """Make a scenario's files and describe their contents."""
    with reading(stderr_console(), quiet=as_json) as progress:
        made = make_scenario(wanted, progress)
    if as_json:
        files = [str(path) for path in made.files]
        typer.echo(json.dumps({**dataclasses.asdict(made), "files": files}))
        return
    console = stdout_console()
    print_line(console, _sizes(made))
    for note in made.notes:
        print_line(console, f"note: {note}", "yellow")
    for path in made.files:
        print_line(console, f"written: {path}")
    if wanted.out.suffix == ".toml":
        print_line(console, f"run it: fleetseg run {shlex.quote(str(wanted.out))}", "dim")


def _sizes(made: Made) -> str:
    sizes = sorted(made.sizes.values())
    middle = statistics.median(sizes)
    return (
        f"{count(len(sizes), 'client')} with {sum(sizes):,} of {count(made.images, 'image')}: "
        f"{sizes[0]} to {sizes[-1]}, median {middle:g}"
    )


def _drives(scenario: Scenario) -> str:
    parts = [
        ", ".join(scenario.train[key])
        for key in ("cities", "conditions", "vehicles")
        if key in scenario.train
    ]
    return f" ({' x '.join(f'({part})' for part in parts)})" if parts else ""
