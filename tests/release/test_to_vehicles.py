"""A release on its way into vehicles: by a server of its own, or by the one that runs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.job import until
from tests.fleet.sites import FakeNetwork, Sites
from tests.release_world import World

from fleetseg.errors import ConfigError, ModelError
from fleetseg.fleet.held_releases import FOLDER, current_release
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.releases import note_drives, read_drives
from fleetseg.fleet.server.serve import ServerRuns
from fleetseg.release import registry, to_vehicles
from fleetseg.release.to_vehicles import publish_to_vehicles


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A fleet's folder without its keys: of four vehicles one is revoked."""
    fields = {
        "host": "localhost", "port": 8102, "vehicles": ["a", "b", "c", "d"], "revoked": ["d"],
    }  # fmt: skip
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "fleet.json").write_text(json.dumps(fields))
    return tmp_path / "fleet"


@pytest.fixture
def models(tmp_path: Path, world: World) -> Path:
    folder = tmp_path / "models"
    registry.publish(folder, world.current, {}, "a page", None)
    registry.publish(folder, world.blind, {}, "a page", 1)
    return folder


def test_vehicles_that_are_there_drive_it_and_others_are_named(
    fleet: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites, told = Sites(tmp_path / "sites"), list[str]()
    for site in ("a", "b"):
        sites.add(site)
    (sites.own("b") / FOLDER).write_text("a file where the folder of releases is to be")

    @contextmanager
    def connected(
        fleet: Any, log_folder: Path, gather_s: float
    ) -> Iterator[tuple[TaskDispatcher, FakeNetwork]]:
        with sites.connected() as both:
            yield both

    monkeypatch.setattr(to_vehicles, "connected", connected)
    done = publish_to_vehicles(models, None, fleet, wait_s=0.5, tell=told.append)
    held = current_release(sites.own("a") / FOLDER)
    assert held is not None
    assert (done.number, done.drives, done.digest) == (2, ("a",), held.digest)
    assert done.refused["b"].startswith("no-room: the release cannot be stored")
    assert done.missing == {"c": "away"}
    assert not done.is_complete
    assert "a drives release 0002" in told
    assert read_drives(fleet)["a"]["release"] == 2
    first = publish_to_vehicles(models, 1, fleet, wait_s=0.1)  # and back
    assert (first.number, first.drives) == (1, ("a",))
    assert sorted(p.name for p in (sites.own("a") / FOLDER).iterdir()) == [
        "0001", "0002", "current",
    ]  # fmt: skip


def test_a_running_server_hands_it_out(
    fleet: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def connected(*_: Any) -> Iterator[None]:
        raise ServerRuns("another server is running for this fleet")
        yield

    monkeypatch.setattr(to_vehicles, "connected", connected)
    monkeypatch.setattr(to_vehicles, "_LOOK_S", 0.02)

    def server() -> None:
        held = until(lambda: current_release(fleet / FOLDER), "it is published")
        for site in ("a", "b"):
            note_drives(fleet, site, held.told())
        note_drives(fleet, "c", {"refused": "digest: no", "offered": held.number})

    thread = threading.Thread(target=server)
    thread.start()
    done = publish_to_vehicles(models, 1, fleet, wait_s=20)
    thread.join()
    assert (done.number, done.drives, done.refused) == (1, ("a", "b"), {"c": "digest: no"})
    assert (done.missing, done.server_runs) == ({}, True)
    late = publish_to_vehicles(models, 2, fleet, wait_s=0.05)
    assert set(late.missing) == {"a", "b", "c"}


def test_only_whole_releases_go_into_vehicles(fleet: Path, models: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no release 0009.*0001, 0002"):
        publish_to_vehicles(models, 9, fleet, wait_s=0.1)
    (models / "0002" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json has changed since the release"):
        publish_to_vehicles(models, 2, fleet, wait_s=0.1)
    (models / registry.CURRENT).unlink()
    with pytest.raises(ConfigError, match="no release is current"):
        publish_to_vehicles(models, None, fleet, wait_s=0.1)
    assert not (fleet / FOLDER).exists()
