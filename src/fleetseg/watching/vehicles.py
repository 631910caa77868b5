"""The vehicles of a networked fleet as a section of the page: connected, busy, late or away."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetseg.federation.records import RoundRecord
from fleetseg.fleet.nvflare.provision import read_fleet
from fleetseg.fleet.server.operations import ONLINE_S
from fleetseg.fleet.server.releases import read_drives
from fleetseg.fleet.server.status import is_running, read_status
from fleetseg.report.page import jinja
from fleetseg.text import plain

_TEMPLATE = Path(__file__).parent / "vehicles.html"
_SHOWN = 24  # in a larger fleet, the others are folded away
_ORDER = (
    "refused",
    "late",
    "away",
    "busy",
    "connected",
    "revoked",
)  # most urgent first


@dataclass(frozen=True)
class VehicleRow:
    """The current state of one vehicle."""

    name: str
    state: str
    note: str  # its task, the reason for the refusal, or the round it was late in
    seen: str
    images: str
    last_round: str
    release: str  # the number of the release that it drives, by its own report


def vehicles_html(fleet_folder: Path, last: RoundRecord | None) -> str:
    """Return the section of a fleet's vehicles, from the data of `fleetseg fleet status`.

    `last` is the newest round of the run; it shows which vehicles were late.

    Raises:
        ConfigError: there is no fleet in that folder.
        MissingExtra: jinja2 is not installed.
    """
    fleet = read_fleet(fleet_folder)
    status, drives, now = read_status(fleet), read_drives(fleet.folder), time.time()
    running = is_running(status, now)
    rows = [
        row
        for site in fleet.vehicles
        for row in _rows(
            site,
            {**status.get("sites", {}).get(site, {}), "drives": drives.get(site, {})},
            last,
            running=running,
            revoked=site in fleet.revoked,
            now=now,
        )
    ]
    environment = jinja().Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    here = sum(row.state in ("connected", "busy", "late") for row in rows)
    trouble = status.get("trouble") if running else ""
    shown, rest = _folded(rows)
    return str(
        template.render(
            shown=shown, rest=rest, total=len(rows), here=here, running=running, trouble=trouble
        )
    )


def _folded(rows: Sequence[VehicleRow]) -> tuple[list[VehicleRow], list[VehicleRow]]:
    """In a large fleet, put vehicles that need attention first and fold the others away."""
    if len(rows) <= _SHOWN:
        return list(rows), []
    ordered = sorted(rows, key=lambda row: _ORDER.index(row.state))
    return ordered[:_SHOWN], ordered[_SHOWN:]


def _rows(
    site: str,
    told: Mapping[str, Any],
    last: RoundRecord | None,
    *,
    running: bool,
    revoked: bool,
    now: float,
) -> list[VehicleRow]:
    age_s = now - told["last_seen"] if told.get("last_seen") else None
    online = running and age_s is not None and age_s < ONLINE_S
    late = {f.client_id for f in last.failures if f.kind == "late"} if last else set()
    held: Mapping[str, Mapping[str, Any]] = told.get("vehicles") or {site: {}}
    rows = []
    for vehicle, holds in held.items():
        state, note = "away", ""
        if revoked:
            state = "revoked"
        elif told.get("refused"):
            state, note = "refused", plain(str(told["refused"]), 200)
        elif online and last is not None and vehicle in late:
            state, note = "late", f"in round {last.round}"
        elif online and told.get("busy"):
            state, note = "busy", _doing(str(told["busy"]))
        elif online:
            state = "connected"
        rows.append(
            VehicleRow(
                name=vehicle if vehicle == site else f"{site} {vehicle}",
                state=state,
                note=note,
                seen="never" if age_s is None else ago(age_s),
                images=f"{holds['images']:,}" if holds else "",
                last_round=str(told.get("last_round", "")),
                release=plain(told["drives"].get("release", ""), 10),
            )
        )
    return rows


def _doing(task: str) -> str:
    """Name a task from a vehicle's report, which is not trusted.

    >>> _doing("train-7"), _doing("norm_statistics-2")
    ('training', 'norm_statistics')
    """
    what = plain(task.rpartition("-")[0], 30)
    known = {"train": "training", "evaluate": "scoring", "release": "fetching a release"}
    return known.get(what, what)


def ago(seconds: float) -> str:
    """Format the time since an event coarsely, so that the page does not change every second.

    >>> ago(3), ago(47), ago(400), ago(9000), ago(200_000)
    ('now', 'under 1 min ago', '6 min ago', '2 h ago', '2 d ago')
    """
    if seconds < 10:
        return "now"
    for limit, size, unit in ((60, 60, ""), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds / size)} {unit} ago" if unit else "under 1 min ago"
    return f"{int(seconds / 86_400)} d ago"
