"""`fleetseg client`: check a vehicle's kit, data and connection, and become its supervisor."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.console import count, print_line, stdout_console
from fleetseg.data.sources import SOURCES, SPLITS
from fleetseg.errors import ConfigError, unknown_name
from fleetseg.fleet.watchdog import READY, notify
from fleetseg.hosts import given_path


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
    where = f"server {kit.host}:{kit.port}; certificate until {ends:%Y-%m-%d}"
    print_line(console, f"{kit.name}: {_found(source)}; {where}")
    print_line(
        console, f"what leaves this vehicle is listed in {kit.own / 'logs' / 'egress.jsonl'}", "dim"
    )
    notify(READY)
    wait_for_server(kit, lambda text: print_line(console, text))
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
