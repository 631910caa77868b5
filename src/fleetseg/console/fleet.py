"""`fleetseg fleet`, `fleetseg server` and `fleetseg client`."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetseg.config import SourceConfig
from fleetseg.console import INTERRUPTED, count, say, stderr_console, stdout_console
from fleetseg.console.tables import class_bars, class_shares, name_cell, plain_table
from fleetseg.data.labels import LABEL_SPACES
from fleetseg.data.sources import SOURCES, SPLITS
from fleetseg.errors import ConfigError, FleetSegError, FolderInUse, unknown_name
from fleetseg.hosts import given_path
from fleetseg.text import names, plain

_ONLINE_S = 25.0
_MACHINE = ("machine", "device", "precision")


def init_and_show(folder: Path, vehicles: str, host: str, port: int) -> None:
    """Make a fleet and say what comes next."""
    from fleetseg.fleet.nvflare.provision import create_fleet

    fleet = create_fleet(folder, host, port, vehicle_names(vehicles))
    console, kits, quoted = stdout_console(), folder / "kits", shlex.quote(str(folder))
    say(
        console,
        f"{count(len(fleet.vehicles), 'kit')} in {kits}, server {host}, port {port}",
        "bold",
    )
    shown = fleet.vehicles[0]
    for what, command in (
        ("here, the server", f"fleetseg server --fleet {quoted} EXPERIMENT.toml"),
        (
            "on each vehicle, with its kit",
            f"fleetseg client --kit {shlex.quote(str(kits / shown))} --dataset camvid --root PATH",
        ),
        ("who is there", f"fleetseg fleet status --fleet {quoted}"),
    ):
        say(console, Text.assemble((f"{what:<32}", "dim"), command))
    say(
        console,
        f"Keep {folder / 'pki'} and {folder / 'operator'} to yourself: the keys in there make "
        "vehicles and start runs. A kit goes to its vehicle over a safe way, and to one only.",
        "yellow",
    )


def vehicle_names(text: str) -> tuple[str, ...]:
    """Read a number or a list of names.

    >>> vehicle_names("2"), vehicle_names("depot, van-7")
    (('car-1', 'car-2'), ('depot', 'van-7'))
    """
    if re.fullmatch(r"\d+", text.strip()):
        number = int(text)
        if not 1 <= number <= 10_000:
            raise ConfigError("--vehicles takes 1 to 10000, or names", got=text)
        return tuple(f"car-{k + 1}" for k in range(number))
    named = names(text)
    if not named:
        raise ConfigError("--vehicles takes 1 to 10000, or names", got=repr(text))
    return named


def add_and_show(folder: Path, vehicle: str) -> None:
    """Make one more kit."""
    from fleetseg.fleet.nvflare.provision import add_vehicle, read_fleet

    fleet = add_vehicle(read_fleet(folder), vehicle)
    console = stdout_console()
    say(console, f"a kit for {vehicle} in {fleet.kit(vehicle)}; the server need not be restarted")
    kit = shlex.quote(str(fleet.kit(vehicle)))
    say(console, f"fleetseg client --kit {kit} --dataset camvid --root PATH", "dim")


def revoke_and_show(folder: Path, vehicle: str) -> None:
    """Take a vehicle out of the fleet."""
    from fleetseg.fleet.nvflare.provision import read_fleet, revoke_vehicle

    fleet = revoke_vehicle(read_fleet(folder), vehicle)
    left = count(len(fleet.active), "vehicle")
    say(stdout_console(), f"{vehicle} is revoked; a running server refuses it within seconds")
    say(stdout_console(), f"{left} may take part", "dim")


def show_status(folder: Path, *, as_json: bool) -> None:
    """Show who is there, what they hold and when they were last seen."""
    from fleetseg.fleet.nvflare.provision import read_fleet
    from fleetseg.fleet.server.serve import read_status

    fleet = read_fleet(folder)
    status = read_status(fleet)
    now = time.time()
    # A server that was killed did not write that it stopped.
    running = bool(status.get("running")) and now - status.get("time", 0) < _ONLINE_S
    sites = {name: status.get("sites", {}).get(name, {}) for name in fleet.vehicles}
    if as_json:
        told = {**status, "running": running, "revoked": fleet.revoked, "sites": sites}
        typer.echo(json.dumps(told))
        return
    console = stdout_console()
    head = f"server {fleet.host}, port {fleet.port}: {'running' if running else 'not running'}"
    if running and status.get("run"):
        head += f", run {status['run']}, segment {status['segment']}"
    say(console, head, "bold")
    if running and status.get("trouble"):
        say(console, status["trouble"], "yellow")
    console.print(_status_table(sites, fleet.revoked, status.get("classes", []), running, now))
    for name, site in sites.items():
        if site.get("refused"):
            say(console, f"{name} was refused: {site['refused']}", "red")


def _status_table(
    sites: Mapping[str, Mapping[str, Any]],
    revoked: Sequence[str],
    classes: Sequence[str],
    running: bool,
    now: float,
) -> Table:
    table = plain_table(
        *("vehicle", "", "seen", "images", "Mpx", "classes", "machine", "fleetseg", "round"),
        left=("vehicle", "", "classes", "machine"),
    )
    spaces = [s for s in LABEL_SPACES.values() if list(s.classes) == list(classes)]
    held = [v["histogram"] for s in sites.values() for v in s.get("vehicles", {}).values()]
    most_C = [max(column) for column in zip(*map(class_shares, held), strict=True)] if held else []
    for name, site in sites.items():
        age_s = now - site["last_seen"] if site.get("last_seen") else None
        machine = site.get("machine", {})
        online = running and age_s is not None and age_s < _ONLINE_S
        rows = site.get("vehicles", {}) or {name: {}}
        for vehicle, v in rows.items():
            bars = Text("")
            if spaces and v.get("histogram"):
                bars = class_bars(class_shares(v["histogram"]), most_C, spaces[0])
            label = name if vehicle == name else f"{name} {vehicle}"
            table.add_row(
                name_cell(label, "bold" if online else "dim"),
                _state(name in revoked, online),
                "never" if age_s is None else _ago(age_s),
                f"{v['images']:,}" if v else "",
                f"{v['pixels'] / 1e6:.2f}" if v else "",
                bars,
                name_cell(_machine(machine)),
                plain(machine.get("fleetseg", ""), 20),
                str(site.get("last_round", "")),
            )
    return table


def _state(revoked: bool, online: bool) -> Text:
    if revoked:
        return Text("revoked", "red")
    return Text("online", "green") if online else Text("away", "dim")


def _machine(told: Mapping[str, Any]) -> str:
    if not told:
        return ""
    cores = plain(told.get("cores", "?"), 10)
    cores = count(int(cores), "core") if cores.isdecimal() else f"{cores} cores"
    machine, device, precision = (plain(told.get(k, "?"), 30) for k in _MACHINE)
    return f"{machine}, {cores}, {device} {precision}"


def _ago(seconds: float) -> str:
    """Say how long ago in one unit.

    >>> _ago(3), _ago(400), _ago(9000), _ago(200_000)
    ('3 s', '7 min', '2 h', '2 d')
    """
    for limit, size, unit in ((100, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def start_client(
    kit_folder: Path,
    kind: str,
    root: str,
    split: str,
    sequences: Sequence[str],
    split_file: Path | None,
    vehicles: Sequence[str],
) -> None:
    """Check a vehicle's kit, data and connection, and become its supervisor; does not return."""
    from fleetseg.fleet.nvflare.kit import (
        check_certificate,
        read_kit,
        supervisor_command,
        wait_for_server,
    )
    from fleetseg.fleet.nvflare.provision import require_nvflare

    require_nvflare()
    kit, console = read_kit(kit_folder), stdout_console()
    ends = check_certificate(kit)
    source = _source(kind, root, split, sequences)
    if split_file is not None and not split_file.exists():
        raise ConfigError("there is no such split file", where=split_file)
    from fleetseg.fleet.vehicle.site_data import SiteData

    kit.own.mkdir(parents=True, exist_ok=True)
    site_data = SiteData(
        kit.name,
        (source,),
        "" if split_file is None else str(split_file.resolve()),
        tuple(vehicles),
    )
    site_data.write(kit.own / "site-data.json")
    where = f"server {kit.host}:{kit.port}"
    say(console, f"{kit.name}: {_found(source)}; {where}; certificate until {ends:%Y-%m-%d}")
    say(
        console, f"what leaves this vehicle is listed in {kit.own / 'logs' / 'egress.jsonl'}", "dim"
    )
    wait_for_server(kit, lambda text: say(console, text))
    command = supervisor_command(kit)
    sys.stdout.flush()
    # This process has loaded much that an idle vehicle does not need.
    os.execv(command[0], command)  # noqa: S606


def _source(kind: str, root: str, split: str, sequences: Sequence[str]) -> SourceConfig:
    if kind not in SOURCES:
        raise unknown_name("data set", kind, SOURCES)
    if root:
        root = str(given_path(root).resolve())
    elif kind != "synthetic":
        raise ConfigError("--root PATH is missing", expected=f"the folder of the {kind} data")
    if not split:
        known = SPLITS[kind](Path(root)) if kind in SPLITS and root else ("train",)
        split = "train" if "train" in known or not known else known[0]
    return SourceConfig(kind=kind, root=root, split=split, sequences=tuple(sequences))


def _found(source: SourceConfig) -> str:
    from fleetseg.data.sources import open_source

    return f"{count(len(open_source(source).samples), 'image')} of {source.kind}/{source.split}"


def serve_and_show(
    file: Path,
    overrides: Sequence[str],
    *,
    fleet: Path,
    out: Path | None,
    resume: bool,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run as a fleet's server, show, and return the exit code."""
    from fleetseg.console.run import asked_words, output_style
    from fleetseg.console.signals import interruptible
    from fleetseg.experiment_file import load_experiment
    from fleetseg.fleet.nvflare.provision import read_fleet

    known, experiment = read_fleet(fleet), load_experiment(file, overrides)
    out = out or Path("runs") / experiment.name
    console = stdout_console()
    words = ["fleetseg", "server", "--fleet", str(fleet), str(file)]
    words += [word for override in overrides for word in ("--set", override)]
    resume_command = shlex.join([*words, "--resume", "--out", str(out)])
    style = output_style(console, as_json=as_json, quiet=quiet)
    asked = asked_words(experiment.federation.cohort, len(known.active))
    title = f"{experiment.name} · fleet of {count(len(known.active), 'vehicle')} · {asked} · "
    with interruptible():
        try:
            return _serve(
                experiment,
                known,
                out,
                resume,
                style,
                console,
                title + experiment.model.name,
                resume_command,
            )
        except KeyboardInterrupt:
            say(stderr_console(), "interrupted before the first round")
            return INTERRUPTED
        except FolderInUse:
            raise
        except FleetSegError:
            if (out / "experiment.toml").is_file():
                say(stderr_console(), f"go on with: {resume_command}", "dim")
            raise


def _serve(
    experiment: Any,
    fleet: Any,
    out: Path,
    resume: bool,
    style: Any,
    console: Console,
    title: str,
    resume_command: str,
) -> int:
    from fleetseg import api
    from fleetseg.console.live import Heading, watching
    from fleetseg.console.progress import reading
    from fleetseg.console.summary import exit_code, show_end

    with (
        reading(stderr_console(), quiet=style in ("json", "quiet")) as progress,
        watching(
            style,
            console,
            heading=lambda: Heading(title, len(fleet.active)),
            total_rounds=experiment.federation.rounds,
        ) as watcher,
    ):
        run = api.serve(
            experiment, fleet.folder, out=out, resume=resume, watcher=watcher, progress=progress
        )
    show_end(run, style, console)
    if run.reason != "interrupted":
        return exit_code([run])
    say(stderr_console(), f"interrupted; go on with: {resume_command}")
    return INTERRUPTED
