"""The commands for scenarios, registered by `cli.app`."""

from __future__ import annotations

import typer

from fleetseg.cli import options as o
from fleetseg.console import reports_errors

scenario_app = typer.Typer(
    no_args_is_help=True, help="Published partitions: list, show and make scenarios."
)


@scenario_app.command("list")
@reports_errors
def scenario_list(as_json: o.Json = False, debug: o.Debug = False) -> None:
    """List the scenarios: FedDrive's, FedSeg's, by embeddings, and synthetic ones like them.

    \b
    Examples:
      fleetseg scenario list
      fleetseg scenario list --json
    """  # noqa: D301
    from fleetseg.console.scenario import list_scenarios

    list_scenarios(as_json=as_json)


@scenario_app.command("show")
@reports_errors
def scenario_show(name: o.ScenarioName, as_json: o.Json = False, debug: o.Debug = False) -> None:
    """Describe a scenario, the rule that assigns images to clients, and how to make it.

    \b
    Examples:
      fleetseg scenario show feddrive-cityscapes-heterogeneous
      fleetseg scenario show synthetic-rainy-uniform --json
    """  # noqa: D301
    from fleetseg.console.scenario import show_scenario

    show_scenario(name, as_json=as_json)


@scenario_app.command("make")
@reports_errors
def scenario_make(
    name: o.ScenarioName,
    out: o.ScenarioOut,
    root: o.Root = "",
    split: o.PublishedSplit = None,
    clients: o.ScenarioClients = 0,
    seed: o.ScenarioSeed = 0,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Write a partition (FILE.json) and, if FILE ends in .toml, an experiment that uses it.

    Without --from, the scenario's rule makes the clients, and no image is lost. The class split
    also writes FILE-classes.json: which classes each client labels.

    \b
    Examples:
      fleetseg scenario make synthetic-rainy-heterogeneous --out rainy.toml
      fleetseg scenario make feddrive-cityscapes-uniform --root data/cityscapes \\
        --from splits/feddrive/cityscapes/uniform --out uniform.toml
      fleetseg scenario make feddrive-cityscapes-heterogeneous --root data/cityscapes --out all.json
      fleetseg scenario make camvid-embedding --root data/camvid --clients 9 --out looks.toml
    """  # noqa: D301
    from fleetseg.console.scenario import make_and_show
    from fleetseg.hosts import given_path
    from fleetseg.runs.scenario_files import Wanted

    folder = str(given_path(root)) if root else ""
    make_and_show(Wanted(name, out, folder, split, clients, seed), as_json=as_json)
