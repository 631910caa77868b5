"""The commands of a networked fleet, registered by `cli.app`."""

from __future__ import annotations

from pathlib import Path

import typer

from fleetseg.cli import options as o
from fleetseg.cli import release_options as r
from fleetseg.cli.fleet_keys import KEY_COMMANDS
from fleetseg.cli.server_options import MetricsPort
from fleetseg.cli.tracking import Track, tracking
from fleetseg.console import reports_errors
from fleetseg.text import names

fleet_app = typer.Typer(no_args_is_help=True, help="Set up and manage a fleet of real vehicles.")


@fleet_app.command("init")
@reports_errors
def fleet_init(
    folder: o.NewFleet,
    host: o.Host,
    vehicles: o.Vehicles = "2",
    port: o.Port = 8102,
    debug: o.Debug = False,
) -> None:
    """Create certificates and start-up kits for a server and its vehicles.

    \b
    Examples:
      fleetseg fleet init fleet --vehicles 4 --host server.example
      fleetseg fleet init fleet --vehicles depot-north,depot-south --host server.example
      fleetseg fleet init fleet --vehicles 2 --host localhost
    """  # noqa: D301
    from fleetseg.console.fleet import init_and_show

    init_and_show(folder, vehicles, host, port)


@fleet_app.command("add")
@reports_errors
def fleet_add(
    vehicle: o.VehicleName, fleet: o.FleetFolder = Path("fleet"), debug: o.Debug = False
) -> None:
    """Create a kit for one more vehicle; a running server admits it without a restart.

    \b
    Example:
      fleetseg fleet add car-5 --fleet fleet
    """  # noqa: D301
    from fleetseg.console.fleet import add_and_show

    add_and_show(fleet, vehicle)


@fleet_app.command("revoke")
@reports_errors
def fleet_revoke(
    vehicle: o.VehicleName, fleet: o.FleetFolder = Path("fleet"), debug: o.Debug = False
) -> None:
    """Revoke a vehicle: a running server refuses it within seconds.

    \b
    Example:
      fleetseg fleet revoke car-5 --fleet fleet
    """  # noqa: D301
    from fleetseg.console.fleet import revoke_and_show

    revoke_and_show(fleet, vehicle)


for _name, _command in KEY_COMMANDS.items():
    fleet_app.command(_name)(_command)


@fleet_app.command("status")
@reports_errors
def fleet_status(
    fleet: o.FleetFolder = Path("fleet"), as_json: o.Json = False, debug: o.Debug = False
) -> None:
    """Show which vehicles are connected, their data and machine, and when they last answered.

    \b
    Examples:
      fleetseg fleet status --fleet fleet
      fleetseg fleet status --fleet fleet --json
    """  # noqa: D301
    from fleetseg.console.fleet import show_status

    show_status(fleet, as_json=as_json)


@fleet_app.command("publish")
@reports_errors
def fleet_publish(
    release: r.Number = None,
    fleet: o.FleetFolder = Path("fleet"),
    models: r.Registry = Path("models"),
    wait: r.Wait = 60.0,
    as_json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Have the vehicles drive a release: they fetch it, verify its digest and confirm.

    A running server hands it out at the beginning of a round; if none is running, one is started
    for it. The exit code is 0 if every vehicle drives it, and 3 if one is away or has refused it.

    \b
    Examples:
      fleetseg fleet publish --fleet fleet
      fleetseg fleet publish 2 --fleet fleet --models fleet-models --wait 600
    """  # noqa: D301
    from fleetseg.console.publish import publish_and_show

    raise typer.Exit(publish_and_show(models, release, fleet, wait, as_json=as_json))


@reports_errors
def server(
    experiment: o.ExperimentFile,
    fleet: o.FleetFolder = Path("fleet"),
    overrides: o.Overrides = None,
    out: o.RunFolder = None,
    resume: o.Resume = False,
    track: Track = None,
    metrics_port: MetricsPort = 0,
    as_json: o.JsonLines = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Train the vehicles of a fleet: start its server and run an experiment to its end.

    Vehicles hold their own data; of the experiment's [data] only the label space, the working size
    and the evaluation sets are used. The run folder is runs/<name> unless --out names another.

    \b
    Examples:
      fleetseg server --fleet fleet examples/fleet.toml
      fleetseg server --fleet fleet examples/fleet.toml --set federation.uplink=int8
      fleetseg server --fleet fleet examples/fleet.toml --track tensorboard
      fleetseg server --fleet fleet examples/fleet.toml --resume
      fleetseg server --fleet fleet examples/fleet.toml --metrics-port 9108
    """  # noqa: D301
    from fleetseg.console.server import serve_and_show

    code = serve_and_show(
        experiment,
        [*(overrides or ()), *tracking(track)],
        fleet=fleet,
        out=out,
        resume=resume,
        as_json=as_json,
        quiet=quiet,
        metrics_port=metrics_port,
    )
    raise typer.Exit(code)


@reports_errors
def client(
    kit: o.KitFolder,
    dataset: o.ClientDataset,
    root: o.Root = "",
    split: o.ClientSplit = "",
    sequences: o.Sequences = "",
    split_file: o.SplitFile = None,
    vehicle: o.InSplit = None,
    debug: o.Debug = False,
) -> None:
    """Run as a vehicle: train for the fleet's server on this machine's images, until stopped.

    \b
    Examples:
      fleetseg client --kit car-1 --dataset camvid --root data/camvid
      fleetseg client --kit car-1 --dataset camvid --root data/camvid --sequences 0001TP
      fleetseg client --kit depot --dataset camvid --root data/camvid \\
        --split-file manifest.json --vehicle camvid-0001TP-1 --vehicle camvid-0001TP-2
    """  # noqa: D301
    from fleetseg.console.client import start_client

    start_client(kit, dataset, root, split, names(sequences), split_file, tuple(vehicle or ()))
