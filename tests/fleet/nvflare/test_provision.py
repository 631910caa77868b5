"""Kits, what they allow, and what is refused before anything is started."""

from __future__ import annotations

import fcntl
import importlib
import json
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiments import tiny_experiment
from typer.testing import CliRunner

from fleetseg.cli.app import app
from fleetseg.errors import ConfigError, EngineError
from fleetseg.experiment_file import to_toml
from fleetseg.fleet import loopback
from fleetseg.fleet.nvflare import kit as vehicle
from fleetseg.fleet.nvflare.kit import check_certificate, read_kit, shake_hands
from fleetseg.fleet.nvflare.provision import (
    Fleet,
    add_vehicle,
    create_fleet,
    read_fleet,
    revoke_vehicle,
)


def free_port() -> int:
    return loopback.free_port()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("made") / "fleet"
    return create_fleet(folder, "localhost", free_port(), ["car-1", "car-2"])


@pytest.fixture
def fleet(made: Fleet, tmp_path: Path) -> Fleet:
    """A fleet of this test's own."""
    shutil.copytree(made.folder, tmp_path / "fleet")
    return read_fleet(tmp_path / "fleet")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("nvflare.apis.impl.controller", "Controller"),
        ("nvflare.apis.controller_spec", "Task"),
        ("nvflare.apis.shareable", "Shareable"),
        ("nvflare.apis.fl_constant", "ReturnCode"),
        ("nvflare.apis.event_type", "EventType"),
        ("nvflare.apis.executor", "Executor"),
        ("nvflare.fuel.flare_api.flare_api", "Session"),
    ],
)
def test_what_we_use_of_nvflare_exists(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_the_classes_that_sites_allow_exist(fleet: Fleet) -> None:
    for site in (fleet.server, fleet.kit("car-1")):
        settings = json.loads((site / "local" / "resources.json").read_text())
        assert settings["class_list_enforcement_mode"] == "enforce"
        assert len(settings["class_allow_list"]) == 2
        for path in settings["class_allow_list"]:
            module, _, name = path.rpartition(".")
            assert hasattr(importlib.import_module(module), name)


def test_nobody_may_send_code_or_open_a_shell(fleet: Fleet) -> None:
    for site in (fleet.server, fleet.kit("car-1"), fleet.kit("car-2")):
        told = json.loads((site / "local" / "authorization.json").read_text())
        for rights in told["permissions"].values():
            assert (rights["byoc"], rights["shell_commands"]) == ("none", "none")
        submitters = [
            r for r, rights in told["permissions"].items() if rights["submit_job"] == "any"
        ]
        assert submitters == ["lead"]


def test_kits_hold_no_scripts_and_keys_are_private(fleet: Fleet) -> None:
    assert list(fleet.folder.glob("**/*.sh")) == list((fleet.folder / "pki").glob("**/*.sh"))
    for key in [*fleet.folder.glob("kits/*/startup/*.key"), fleet.server / "startup/server.key"]:
        assert key.stat().st_mode & 0o077 == 0
    assert fleet.folder.stat().st_mode & 0o077 == 0


def test_logs_stay_on_the_vehicle(fleet: Fleet) -> None:
    settings = json.loads((fleet.kit("car-1") / "local" / "resources.json").read_text())
    assert settings["allow_log_streaming"] is False
    assert "log" not in " ".join(c["id"] for c in settings["components"])


def test_storage_lies_inside_the_fleet_s_folder(fleet: Fleet) -> None:
    text = (fleet.server / "local" / "resources.json").read_text()
    assert "/tmp/nvflare" not in text


def test_a_vehicle_is_added_and_the_others_stay_as_they_are(fleet: Fleet) -> None:
    before = {p: p.read_bytes() for p in fleet.folder.glob("kits/*/startup/*")}
    added = add_vehicle(fleet, "car-3")
    assert added == read_fleet(fleet.folder)
    assert added.active == ("car-1", "car-2", "car-3")
    assert {p: p.read_bytes() for p in before} == before
    root = (fleet.kit("car-1") / "startup" / "rootCA.pem").read_bytes()
    assert (added.kit("car-3") / "startup" / "rootCA.pem").read_bytes() == root
    assert read_kit(added.kit("car-3")).name == "car-3"


def test_a_vehicle_is_revoked(fleet: Fleet) -> None:
    assert revoke_vehicle(fleet, "car-2").active == ("car-1",)
    assert read_fleet(fleet.folder).revoked == ("car-2",)
    with pytest.raises(ConfigError, match=r"no vehicle 'car-9'.*one of: car-1, car-2"):
        revoke_vehicle(fleet, "car-9")


@pytest.mark.parametrize(
    "names", [["a b"], ["../up"], [""], ["x" * 80], ["-v"], ["car-1", "car.2"], ["server"]]
)
def test_names_that_are_no_names(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"not usable as a vehicle's name.*no dot"):
        create_fleet(tmp_path / "fleet", "server.example", 8102, names)
    assert not (tmp_path / "fleet" / "fleet.json").exists()


def test_hosts_that_are_no_hosts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not usable as a host"):
        create_fleet(tmp_path / "fleet", "server example", 8102, ["car-1"])


def test_a_vehicle_with_a_dot_in_its_name_is_not_added(fleet: Fleet) -> None:
    with pytest.raises(ConfigError, match=r"not usable as a vehicle's name; got 'car\.3'"):
        add_vehicle(fleet, "car.3")
    assert read_fleet(fleet.folder).vehicles == ("car-1", "car-2")


def test_what_is_there_already_is_not_overwritten(fleet: Fleet) -> None:
    with pytest.raises(ConfigError, match="already holds a fleet"):
        create_fleet(fleet.folder, "localhost", 8102, ["car-1"])
    with pytest.raises(ConfigError, match="there already is a 'car-1'"):
        add_vehicle(fleet, "car-1")
    with pytest.raises(ConfigError, match="the same name"):
        create_fleet(fleet.folder / "new", "localhost", 8102, ["car-1", "car-1"])


@pytest.mark.parametrize("days", [-2, 400])
def test_a_certificate_that_is_not_valid_now(
    fleet: Fleet, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = read_kit(fleet.kit("car-1"))
    assert check_certificate(kit) > datetime.now(UTC) + timedelta(days=300)
    there = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr(vehicle, "datetime", SimpleNamespace(now=lambda zone: there))
    with pytest.raises(EngineError, match=r"not valid now.*by this machine's clock.*Set the clock"):
        check_certificate(kit)


def test_nobody_listens_yet(fleet: Fleet) -> None:
    assert shake_hands(read_kit(fleet.kit("car-1"))) is False


def test_something_else_listens(fleet: Fleet) -> None:
    """A plain TCP server that answers nothing of TLS."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", fleet.port))
        other.listen()
        assert shake_hands(read_kit(fleet.kit("car-1")), timeout_s=0.5) is False


def test_a_folder_that_is_no_kit(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a start-up kit.*kits/NAME"):
        read_kit(tmp_path)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text(to_toml(tiny_experiment(tmp_path / "cache")))
    return path


def serve(fleet: Fleet, toml: Path, *options: str) -> str:
    """What `fleetseg server` says on standard error; it must end with 1."""
    words = ["server", "--fleet", str(fleet.folder), str(toml), "--out", str(toml.parent / "run")]
    done = CliRunner().invoke(app, [*words, *options])
    assert done.exit_code == 1, done.output
    return done.stderr


def test_a_port_that_is_taken(fleet: Fleet, toml: Path) -> None:
    with socket.socket() as other:
        other.bind(("", fleet.port))
        other.listen()
        told = serve(fleet, toml)
    assert f"port {fleet.port} cannot be opened" in told
    assert "--port" in told


def test_one_fleet_has_one_server(fleet: Fleet, toml: Path) -> None:
    with open(fleet.folder / "server.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = serve(fleet, toml)
    assert "another server is running for this fleet" in told


def test_a_run_that_is_there_is_not_overwritten(fleet: Fleet, toml: Path) -> None:
    (toml.parent / "run").mkdir()
    shutil.copy(toml, toml.parent / "run" / "experiment.toml")
    assert "--resume" in serve(fleet, toml)


@given(st.lists(st.text(min_size=1), unique=True, min_size=1), st.integers(1, 9))
def test_every_client_is_at_one_site(clients: list[str], sites: int) -> None:
    shares = loopback.share_out(clients, min(sites, len(clients)))
    assert sorted(c for share in shares.values() for c in share) == sorted(clients)
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1
