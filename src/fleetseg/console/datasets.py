"""`fleetseg data check`, `fleetseg data synth` and `fleetseg partition`."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.text import Text

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment, SourceConfig
from fleetseg.console import count, print_line, stderr_console, stdout_console
from fleetseg.console.progress import reading
from fleetseg.console.tables import clients_table
from fleetseg.data.check import (
    CheckReport,
    check,
    detect,
    report_lines,
    shared_images,
    shared_sequences,
)
from fleetseg.data.sources import SPLITS, open_source
from fleetseg.data.store.folder import default_cache_dir
from fleetseg.data.synthetic.source import open_synthetic, write_dataset
from fleetseg.errors import ConfigError, DataError, unknown_name
from fleetseg.runs.client_summary import ClientSummary, summarise_clients

_BAD_LISTED = 10


def check_and_show(path: Path, *, kind: str, split: str, as_json: bool) -> int:
    """Check data sets and list their defects; the exit code is 1 for any that would affect a run.

    These are bad files, and images that are in two splits.
    """
    console, num_bad = stdout_console(), 0
    reports: dict[str, list[CheckReport]] = {}  # by root
    for number, config in enumerate(_configs(path, kind, split)):
        report = _check(config, quiet=as_json)
        reports.setdefault(config.root, []).append(report)
        num_bad += len(report.bad)
        if as_json:
            typer.echo(json.dumps(report.to_dict()))
            continue
        if number:
            console.print()
        for line in report_lines(report, default_cache_dir()):
            print_line(console, line, _style(line))
    for line in (line for those in reports.values() for line in shared_sequences(those)):
        print_line(stderr_console() if as_json else console, line, _style(line))
    shared = [line for those in reports.values() for line in shared_images(those)]
    for line in shared:
        print_line(stderr_console() if as_json else console, line, "bold red")
    if num_bad and not as_json:
        print_line(
            console, f"{count(num_bad, 'bad sample')}; a run would skip and list them", "bold red"
        )
    return 1 if num_bad or shared else 0


def _style(line: str) -> str:
    if line.startswith("bad: "):
        return "red"
    return "yellow" if line.startswith("note: ") or "DIFFERENT labels" in line else ""


def _check(config: SourceConfig, *, quiet: bool) -> CheckReport:
    what = f"{config.kind}/{config.split}"
    with reading(stderr_console(), quiet=quiet, verb="checking") as progress:
        return check(open_source(config), lambda done, of: progress(what, done, of))


def _configs(path: Path, kind: str, split: str) -> list[SourceConfig]:
    if not kind:
        configs = detect(path)
    elif kind not in SPLITS:
        raise unknown_name("layout", kind, SPLITS)
    elif split:
        return [SourceConfig(kind=kind, root=str(path), split=split)]
    else:
        # Without a known split, the error of the source itself says best what it looked for.
        splits = SPLITS[kind](path) or ("train",)
        return [SourceConfig(kind=kind, root=str(path), split=name) for name in splits]
    found = [config for config in configs if split in ("", config.split)]
    if not found:
        raise DataError(
            f"no split '{split}'",
            where=path,
            expected="one of: " + ", ".join(sorted({config.split for config in configs})),
        )
    return found


def synthesise(out: Path, config: SourceConfig, size: str) -> None:
    """Draw synthetic drives into a folder in CamVid's layout."""
    match = re.fullmatch(r"(\d+)x(\d+)", size)
    if match is None:
        raise ConfigError("--size takes HEIGHTxWIDTH", got=repr(size), expected="e.g. 192x256")
    source = open_synthetic(config, (int(match[1]), int(match[2])))
    with reading(stderr_console(), verb="painting") as progress:
        written = write_dataset(source, out, lambda n, of: progress(f"to {out}", n, of))
    console = stdout_console()
    print_line(console, f"{count(written, 'picture')} with labels in {out}")
    print_line(console, f"check them: fleetseg data check {shlex.quote(str(out))}", "dim")


def partition_and_show(experiment: Experiment, out: Path | None, *, as_json: bool) -> None:
    """Print the partition; a leak is an error.

    Raises:
        LeakError: a sample is on both sides of a split.
    """
    with reading(stderr_console(), quiet=as_json) as progress:
        fleet_data = open_fleet_data(experiment, progress)
    assert fleet_data.manifest is not None
    if out is not None:
        fleet_data.manifest.write(out)
    clients = summarise_clients(fleet_data)
    if as_json:
        typer.echo(json.dumps(_as_json(clients, fleet_data, out)))
        return
    console, space = stdout_console(), fleet_data.space
    console.print(clients_table(clients, space))
    console.print()
    print_line(console, _legend(space.classes, space.colours))
    for part in fleet_data.evaluation:
        print_line(console, f"evaluation on {part.name}: {count(len(part.scored), 'image')}")
    many = len(fleet_data.bad) - _BAD_LISTED
    for note in fleet_data.notes[: -many if many > 0 else None]:  # bad samples come last
        console.print(Text(f"note: {note}", "yellow"))
    if many > 0:
        print_line(
            console, f"and {count(many, 'more bad sample')}: see fleetseg data check", "yellow"
        )
    images = sum(h.images for h in clients)
    print_line(
        console, f"{count(len(clients), 'vehicle')}, {count(images, 'usable image')}, no leaks"
    )
    if out is not None:
        print_line(console, f"manifest in {out}, sha256 {fleet_data.manifest.digest}")


def _as_json(
    clients: Sequence[ClientSummary], fleet_data: FleetData, out: Path | None
) -> dict[str, object]:
    assert fleet_data.manifest is not None
    return {
        "clients": [dataclasses.asdict(client) for client in clients],
        "classes": list(fleet_data.space.classes),
        "evaluation": {part.name: len(part.scored) for part in fleet_data.evaluation},
        "notes": list(fleet_data.notes),
        "manifest_sha256": fleet_data.manifest.digest,
        "manifest": None if out is None else str(out),
    }


def _legend(classes: Sequence[str], colours: Sequence[tuple[int, int, int]]) -> Text:
    text = Text("bars, from left to right: ", "dim")
    for number, (name, (red, green, blue)) in enumerate(zip(classes, colours, strict=True)):
        text.append(", " if number else "", "dim")
        text.append("█ ", f"rgb({red},{green},{blue})")
        text.append(name)
    return text
