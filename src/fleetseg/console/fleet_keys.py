"""`fleetseg fleet list | request | sign | handed | rotate | unrevoke`: keys and who has them."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from fleetseg.console import count, print_line, stdout_console
from fleetseg.console.tables import name_cell, plain_table
from fleetseg.errors import ConfigError

if TYPE_CHECKING:
    from fleetseg.fleet.nvflare.keys import Member

_SOON_DAYS = 60


def list_and_show(folder: Path, *, as_json: bool) -> None:
    """Print every vehicle: whether it may take part, its certificate's expiry, where its key is."""
    from fleetseg.fleet.nvflare.keys import certificate_end, members
    from fleetseg.fleet.nvflare.provision import read_fleet, require_nvflare

    require_nvflare()
    fleet = read_fleet(folder)
    listed, server_ends = members(fleet), certificate_end(fleet.server / "startup" / "server.crt")
    if as_json:
        typer.echo(json.dumps({
            "server_certificate_until": _date(server_ends),
            "vehicles": [
                {"name": m.name, "revoked": m.revoked, "certificate_until": _date(m.ends),
                 "key_here": m.key_here}
                for m in listed
            ],
        }))  # fmt: skip
        return
    console = stdout_console()
    table = plain_table(
        "vehicle", "", "certificate until", "private key", left=("vehicle", "", "private key")
    )
    for m in listed:
        state = Text("revoked", "red") if m.revoked else Text("may take part", "green")
        where = "vehicle and here" if m.key_here else "vehicle"
        table.add_row(name_cell(m.name), state, _until(m.ends), where)
    console.print(table)
    print_line(console, Text.assemble("the server's certificate ends ", _until(server_ends)))
    held = [m.name for m in listed if m.key_here]
    if held:
        hint = f"of {count(len(held), 'private key')} here, remove those that have been handed over"
        print_line(console, f"{hint}: fleetseg fleet handed NAME", "dim")


def request_and_show(vehicle: str, kit: Path) -> None:
    """On a vehicle: create its key and the request that the operator signs."""
    from fleetseg.fleet.nvflare.keys import request_certificate
    from fleetseg.fleet.nvflare.provision import require_nvflare

    require_nvflare()
    request = request_certificate(kit, vehicle)
    console, quoted = stdout_console(), shlex.quote
    print_line(console, f"a private key for {vehicle} in {kit / 'startup'}; it stays there")
    for what, command in (
        ("send the operator", quoted(str(request))),
        ("who signs it", f"fleetseg fleet sign {quoted(request.name)} --fleet DIR"),
        (
            "then, here, what came of it",
            f"scp -r SERVER:DIR/kits/{vehicle}/. {quoted(str(kit))}/",
        ),
        ("and", f"fleetseg client --kit {quoted(str(kit))} --dataset camvid --root PATH"),
    ):
        print_line(console, Text.assemble((f"{what:<28}", "dim"), command))


def sign_and_show(folder: Path, request: Path) -> None:
    """Admit a vehicle that has created its own key."""
    from fleetseg.fleet.nvflare.provision import read_fleet, require_nvflare, sign_request

    require_nvflare()
    fleet, vehicle = sign_request(read_fleet(folder), request)
    console = stdout_console()
    print_line(console, f"{vehicle} is of the fleet; the server need not be restarted")
    _say_what_to_carry(fleet.kit(vehicle), vehicle)


def hand_over_and_show(folder: Path, vehicle: str) -> None:
    """Remove a private key that its vehicle has received."""
    from fleetseg.fleet.nvflare.keys import hand_over
    from fleetseg.fleet.nvflare.provision import read_fleet

    hand_over(read_fleet(folder), vehicle)
    print_line(stdout_console(), f"the private key of {vehicle} is no longer here")


def unrevoke_and_show(folder: Path, vehicle: str) -> None:
    """Let a revoked vehicle take part again."""
    from fleetseg.fleet.nvflare.provision import read_fleet, unrevoke_vehicle

    fleet = unrevoke_vehicle(read_fleet(folder), vehicle)
    left = count(len(fleet.active), "vehicle")
    print_line(stdout_console(), f"{vehicle} may take part again, with the kit it has")
    print_line(stdout_console(), f"{left} may take part", "dim")


def rotate_and_show(
    folder: Path, vehicle: str, request: Path | None, *, all_vehicles: bool, server: bool
) -> None:
    """Issue new certificates for one vehicle, for all, or for the server."""
    from fleetseg.fleet.nvflare.provision import read_fleet, require_nvflare

    require_nvflare()
    if (bool(vehicle) + all_vehicles + server) != 1 or (request is not None and not vehicle):
        raise ConfigError(
            "nothing to do", expected="one of NAME (with --request, if it has its own key), --all, "
            "--server",
        )  # fmt: skip
    if server:
        _rotate_server(folder)
    elif all_vehicles:
        _rotate_all(folder)
    else:
        from fleetseg.fleet.nvflare.keys import rotate_vehicle

        fleet = read_fleet(folder)
        rotate_vehicle(fleet, vehicle, request)
        _say_rotated(f"a new certificate for {vehicle}")
        if request is None:
            kit = shlex.quote(str(fleet.kit(vehicle)))
            print_line(stdout_console(), f"carry {kit}/startup to the vehicle and start it again")
        else:
            _say_what_to_carry(fleet.kit(vehicle), vehicle)


def _rotate_all(folder: Path) -> None:
    from fleetseg.fleet.nvflare.keys import members, rotate_vehicle
    from fleetseg.fleet.nvflare.provision import read_fleet

    fleet = read_fleet(folder)
    active: list[Member] = [m for m in members(fleet) if not m.revoked]
    own = [m.name for m in active if not m.key_here]
    for m in active:
        if m.key_here:
            rotate_vehicle(fleet, m.name)
    _say_rotated(f"new certificates for {count(len(active) - len(own), 'vehicle')}")
    if own:
        shown = ", ".join(own[:5]) + (", ..." if len(own) > 5 else "")
        text = f"{count(len(own), 'vehicle')} with keys of their own ({shown}): have each make a "
        text += "request, then fleetseg fleet rotate NAME --request FILE"
        print_line(stdout_console(), text, "yellow")


def _rotate_server(folder: Path) -> None:
    from fleetseg.fleet.nvflare.keys import rotate_server
    from fleetseg.fleet.nvflare.provision import read_fleet

    rotate_server(read_fleet(folder))
    _say_rotated("new certificates for the root, the server and the operator")
    print_line(
        stdout_console(),
        "vehicles keep theirs; they get the new root with their own next certificate",
        "dim",
    )


def _say_rotated(what: str) -> None:
    print_line(stdout_console(), f"{what}; the previous ones are accepted until they expire")


def _say_what_to_carry(kit: Path, vehicle: str) -> None:
    there = f"{shlex.quote(str(kit))}/. {vehicle}:KIT/"
    print_line(
        stdout_console(),
        f"its kit has no private key; copy it into the vehicle's: scp -r {there}",
    )


def _date(ends: datetime | None) -> str | None:
    return None if ends is None else f"{ends:%Y-%m-%d}"


def _until(ends: datetime | None) -> Text:
    if ends is None:
        return Text("not known", "dim")
    days = (ends - datetime.now(UTC)).days
    style = "red" if days < 0 else "yellow" if days < _SOON_DAYS else ""
    return Text(f"{ends:%Y-%m-%d}", style)
