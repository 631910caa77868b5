"""`fleetseg fleet`, `fleetseg server` and `fleetseg client`."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from fleetseg.console import count, print_line, stdout_console
from fleetseg.console.tables import class_bars, class_shares, name_cell, plain_table
from fleetseg.data.labels import LABEL_SPACES
from fleetseg.errors import ConfigError
from fleetseg.text import names, plain

_MACHINE = ("machine", "device", "precision")


def init_and_show(folder: Path, vehicles: str, host: str, port: int) -> None:
    """Create a fleet and print the next steps."""
    from fleetseg.fleet.nvflare.provision import create_fleet

    fleet = create_fleet(folder, host, port, vehicle_names(vehicles))
    console, kits, quoted = stdout_console(), folder / "kits", shlex.quote(str(folder))
    print_line(
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
        ("which vehicles are connected", f"fleetseg fleet status --fleet {quoted}"),
    ):
        print_line(console, Text.assemble((f"{what:<32}", "dim"), command))
    print_line(
        console,
        f"Keep {folder / 'pki'} and {folder / 'operator'} to yourself: their keys create "
        "vehicles and start runs. Send each kit to one vehicle only, over a secure channel; "
        f"then remove its key here: fleetseg fleet handed {shown} --fleet {quoted}",
        "yellow",
    )


def vehicle_names(text: str) -> tuple[str, ...]:
    """Parse a number of vehicles or a list of names.

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
    """Create one more kit."""
    from fleetseg.fleet.nvflare.provision import add_vehicle, read_fleet

    fleet = add_vehicle(read_fleet(folder), vehicle)
    console = stdout_console()
    print_line(
        console, f"a kit for {vehicle} in {fleet.kit(vehicle)}; the server need not be restarted"
    )
    kit, quoted = shlex.quote(str(fleet.kit(vehicle))), shlex.quote(str(folder))
    print_line(console, f"fleetseg client --kit {kit} --dataset camvid --root PATH", "dim")
    handed = f"fleetseg fleet handed {vehicle} --fleet {quoted}"
    print_line(console, f"it contains the private key; once the vehicle has it: {handed}", "dim")


def revoke_and_show(folder: Path, vehicle: str) -> None:
    """Revoke a vehicle."""
    from fleetseg.fleet.nvflare.provision import read_fleet, revoke_vehicle

    fleet = revoke_vehicle(read_fleet(folder), vehicle)
    left = count(len(fleet.active), "vehicle")
    print_line(
        stdout_console(), f"{vehicle} is revoked; a running server refuses it within seconds"
    )
    print_line(stdout_console(), f"{left} may take part", "dim")


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print which vehicles are connected, what data they have and when they were last seen."""
    from fleetseg.fleet.nvflare.provision import read_fleet
    from fleetseg.fleet.server.releases import read_drives
    from fleetseg.fleet.server.status import is_running, read_status

    fleet = read_fleet(folder)
    status, drives = read_status(fleet), read_drives(fleet.folder)
    now = time.time()
    running = is_running(status, now)
    sites = {name: status.get("sites", {}).get(name, {}) for name in fleet.vehicles}
    sites = {n: {**s, "drives": drives[n]} if n in drives else s for n, s in sites.items()}
    if as_json:
        fields = {**status, "running": running, "revoked": fleet.revoked, "sites": sites}
        typer.echo(json.dumps(fields))
        return
    console = stdout_console()
    head = f"server {fleet.host}, port {fleet.port}: {'running' if running else 'not running'}"
    if running and status.get("run"):
        head += f", run {status['run']}, segment {status['segment']}"
    print_line(console, head, "bold")
    if running and status.get("trouble"):
        print_line(console, status["trouble"], "yellow")
    console.print(_status_table(sites, fleet.revoked, status.get("classes", []), running, now))
    for name, site in sites.items():
        if site.get("refused"):
            print_line(console, f"{name} was refused: {site['refused']}", "red")
        if why := site.get("drives", {}).get("refused"):
            offered = plain(site["drives"].get("offered", "?"), 10)
            print_line(console, f"{name} refuses release {offered}: {plain(why, 300)}", "red")
        if running and site.get("quarantined"):
            print_line(console, f"{name} is left out: {site['quarantined']}", "red")


def _status_table(
    sites: Mapping[str, Mapping[str, Any]],
    revoked: Sequence[str],
    classes: Sequence[str],
    running: bool,
    now: float,
) -> Table:
    from fleetseg.fleet.server.operations import ONLINE_S

    table = plain_table(
        *("vehicle", "", "seen", "images", "Mpx", "classes", "machine", "fleetseg", "round"),
        "release",
        left=("vehicle", "", "classes", "machine"),
    )
    spaces = [s for s in LABEL_SPACES.values() if list(s.classes) == list(classes)]
    held = [v["histogram"] for s in sites.values() for v in s.get("vehicles", {}).values()]
    most_C = [max(column) for column in zip(*map(class_shares, held), strict=True)] if held else []
    for name, site in sites.items():
        age_s = now - site["last_seen"] if site.get("last_seen") else None
        machine = site.get("machine", {})
        online = running and age_s is not None and age_s < ONLINE_S
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
                plain(site.get("drives", {}).get("release", ""), 10),
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
    """Format the time since an event in one unit.

    >>> _ago(3), _ago(400), _ago(9000), _ago(200_000)
    ('3 s', '7 min', '2 h', '2 d')
    """
    for limit, size, unit in ((100, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"
