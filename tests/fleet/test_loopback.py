"""A fleet on this machine that is started again with another number of sites."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.experiments import tiny_experiment

from fleetseg.config import Experiment
from fleetseg.fleet import loopback as module
from fleetseg.fleet.nvflare.provision import Fleet
from fleetseg.fleet.server.enrolment import RunSpec
from fleetseg.fleet.vehicle.site_data import SiteData

CLIENTS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[SiteData]:
    """Sites that are started in name only; what each would read is noted."""
    sites: list[SiteData] = []

    def make(folder: Path, host: str, port: int, vehicles: Sequence[str]) -> Fleet:
        folder.mkdir(parents=True)
        fleet = Fleet(folder.resolve(), host, port, tuple(vehicles))
        fleet.save()
        return fleet

    def start(kit: Any, **_: Any) -> None:
        sites.append(SiteData.read(kit.own / "site-data.json"))

    @contextlib.contextmanager
    def serve(*_: Any) -> Iterator[None]:
        yield

    kit_of = lambda folder: SimpleNamespace(own=folder / "fleetseg")  # noqa: E731
    for name, fake in {
        "create_fleet": make, "read_kit": kit_of, "supervisor_command": lambda kit: kit,
        "start_child": start, "stop": lambda *_: None, "serving": serve,
    }.items():  # fmt: skip
        monkeypatch.setattr(module, name, fake)
    return sites


def begin(run: Path, workers: int, cache: Path) -> None:
    described: Experiment = tiny_experiment(cache, engine={"kind": "fleet", "workers": workers})
    spec = RunSpec("run", described, *[None] * 3)  # type: ignore[arg-type]
    with module.loopback(spec, run, CLIENTS, ""):
        pass


def test_another_number_of_sites_takes_nothing_from_anybody(
    started: list[SiteData], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    begin(run, 2, tmp_path)
    lists = run / "fleet" / "kits" / "site-1" / "fleetseg" / "logs" / "egress.jsonl"
    lists.parent.mkdir(parents=True)
    lists.write_text("what was sent")
    begin(run, 3, tmp_path)
    begin(run, 1, tmp_path)
    held = [site.vehicles for site in started]
    assert held == [("a", "c"), ("b",), ("a",), ("b",), ("c",), CLIENTS]
    assert {site.keeps for site in started} == {str(run / "clients")}
    vehicles = {
        p.name: json.loads((p / "fleet.json").read_text())["vehicles"] for p in run.iterdir()
    }
    assert {name: len(sites) for name, sites in vehicles.items()} == {
        "fleet": 1, "fleet-before-1": 2, "fleet-before-2": 3,
    }  # fmt: skip
    aside = run / "fleet-before-1" / lists.relative_to(run / "fleet")
    assert aside.read_text() == "what was sent"


def test_the_same_number_of_sites_is_the_same_fleet(tmp_path: Path) -> None:
    for _ in range(2):
        begin(tmp_path / "run", 2, tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["fleet"]
