"""Keys made on the vehicle, handed over, replaced; at the end with real processes."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fleet.nvflare import harness as h
from tests.fleet.nvflare.paper_fleet import one_key, paper_fleet
from typer.testing import CliRunner

pytest.importorskip("nvflare")

from cryptography import x509
from tests.fleet.nvflare.test_vehicles import Fleet as RealFleet

from fleetseg.cli.app import app
from fleetseg.errors import ConfigError, EngineError
from fleetseg.fleet.nvflare import keys, kit_files
from fleetseg.fleet.nvflare.certificates import key_pem, read_authority
from fleetseg.fleet.nvflare.keys import (
    certificate_end,
    hand_over,
    members,
    request_certificate,
    rotate_server,
    rotate_vehicle,
)
from fleetseg.fleet.nvflare.kit import check_certificate, read_kit
from fleetseg.fleet.nvflare.provision import Fleet, add_vehicle, read_fleet, revoke_vehicle


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setattr(kit_files, "new_key", one_key)
    made = paper_fleet(tmp_path / "fleet")
    return add_vehicle(made, "car-1")


def fleetseg(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_vehicle_joins_with_a_key_of_its_own(fleet: Fleet, tmp_path: Path) -> None:
    there = tmp_path / "vehicle"  # another machine's folder
    told = fleetseg("fleet", "request", "car-7", "--kit", there)
    assert "it stays there" in told
    sent = shutil.copy(there / "car-7.csr", tmp_path / "car-7.csr")
    told = fleetseg("fleet", "sign", sent, "--fleet", fleet.folder)
    assert "no private key" in told
    kit = fleet.kit("car-7")
    assert not list(fleet.folder.glob("**/car-7/**/*.key"))
    with pytest.raises(
        ConfigError, match=r"client.key: this kit has no private key.*fleet request"
    ):
        check_certificate(read_kit(kit))
    shutil.copytree(kit, there, dirs_exist_ok=True)
    assert (there / "startup" / "client.key").stat().st_mode & 0o077 == 0
    joined = read_kit(there)
    assert (joined.name, joined.host) == ("car-7", "localhost")
    check_certificate(joined)
    again = CliRunner().invoke(app, ["fleet", "sign", str(sent), "--fleet", str(fleet.folder)])
    assert again.exit_code == 1
    assert "there already is a 'car-7'" in again.stderr


def test_a_certificate_for_another_key_is_told_before_anything_starts(
    fleet: Fleet, tmp_path: Path
) -> None:
    request_certificate(tmp_path / "vehicle", "car-1")
    shutil.copy(tmp_path / "vehicle" / "startup" / "client.key", fleet.kit("car-1") / "startup")
    with pytest.raises(ConfigError, match="certificate is for another private key"):
        check_certificate(read_kit(fleet.kit("car-1")))


def test_a_key_is_not_overwritten_by_a_second_request(tmp_path: Path) -> None:
    request_certificate(tmp_path / "kit", "car-1")
    with pytest.raises(ConfigError, match=r"there already is a private key.*--kit"):
        request_certificate(tmp_path / "kit", "car-1")


def test_a_key_that_is_handed_over_is_no_longer_here(fleet: Fleet) -> None:
    assert "fleet handed" in fleetseg("fleet", "add", "car-2", "--fleet", fleet.folder)
    assert [m.key_here for m in members(read_fleet(fleet.folder))] == [True, True]
    fleetseg("fleet", "handed", "car-2", "--fleet", fleet.folder)
    assert [m.key_here for m in members(read_fleet(fleet.folder))] == [True, False]
    assert (fleet.kit("car-2") / "startup" / "client.crt").exists()
    with pytest.raises(ConfigError, match=r"no vehicle 'car-9'"):
        hand_over(fleet, "car-9")


def test_a_kit_in_use_in_this_very_folder_is_left_alone(fleet: Fleet) -> None:
    (fleet.kit("car-1") / "fleetseg").mkdir()
    with open(fleet.kit("car-1") / "fleetseg" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for change in (hand_over, rotate_vehicle):
            with pytest.raises(EngineError, match="running from this folder"):
                change(fleet, "car-1")
    assert members(fleet)[0].key_here
    hand_over(fleet, "car-1")


def test_a_new_certificate_and_the_old_one_have_one_root(fleet: Fleet, tmp_path: Path) -> None:
    startup = fleet.kit("car-1") / "startup"
    old = x509.load_pem_x509_certificate((startup / "client.crt").read_bytes())
    fleetseg("fleet", "rotate", "car-1", "--fleet", fleet.folder)
    new = x509.load_pem_x509_certificate((startup / "client.crt").read_bytes())
    assert new.serial_number != old.serial_number
    assert new.subject == old.subject
    root = read_authority(fleet.folder).certificate
    for certificate in (old, new):
        certificate.verify_directly_issued_by(root)
    check_certificate(read_kit(fleet.kit("car-1")))
    request = request_certificate(tmp_path / "vehicle", "car-1")
    fleetseg("fleet", "rotate", "car-1", "--fleet", fleet.folder, "--request", request)
    assert not members(fleet)[0].key_here
    told = fleetseg("fleet", "rotate", "--all", "--fleet", fleet.folder)
    assert "1 vehicle with keys of their own (car-1)" in told


def test_what_is_not_rotated(fleet: Fleet, tmp_path: Path) -> None:
    other = request_certificate(tmp_path / "vehicle", "car-8")
    with pytest.raises(ConfigError, match="a request from another vehicle; got car-8"):
        rotate_vehicle(fleet, "car-1", other)
    with pytest.raises(ConfigError, match="no vehicle 'car-8'"):
        rotate_vehicle(fleet, "car-8", other)
    revoke_vehicle(fleet, "car-1")
    with pytest.raises(ConfigError, match=r"'car-1' is revoked.*unrevoke car-1"):
        rotate_vehicle(fleet, "car-1")
    for words in (
        [],
        ["--all", "--server"],
        ["car-1", "--all"],
        ["--all", "--request", str(other)],
    ):
        done = CliRunner().invoke(app, ["fleet", "rotate", "--fleet", str(fleet.folder), *words])
        assert done.exit_code == 1
        assert "one of NAME" in done.stderr


def test_a_kit_that_was_deleted_is_made_again(fleet: Fleet) -> None:
    shutil.rmtree(fleet.kit("car-1"))
    assert members(fleet)[0].ends is None
    rotate_vehicle(fleet, "car-1")
    check_certificate(read_kit(fleet.kit("car-1")))


def test_the_server_s_side_is_renewed_while_it_is_stopped(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "new_key", one_key)
    with open(fleet.folder / "server.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match=r"server is running. Stop it first"):
            rotate_server(fleet)
    before = read_authority(fleet.folder).certificate
    key = fleet.server / "startup" / "server.key"
    with pytest.raises(ConfigError, match=r"server.key: the private key cannot be read"):
        rotate_server(fleet)
    assert read_authority(fleet.folder).certificate == before
    key.write_bytes(key_pem(one_key()))
    key.chmod(0o600)
    rotate_server(fleet)
    assert key.read_bytes() == key_pem(one_key())  # running vehicles' tokens are signed with it
    after = read_authority(fleet.folder).certificate
    assert after.not_valid_after_utc > before.not_valid_after_utc
    server, operator = fleet.server / "startup", fleet.operator / "startup"
    for startup, name in ((server, "server"), (operator, "client")):
        new = x509.load_pem_x509_certificate((startup / f"{name}.crt").read_bytes())
        for root in (before, after):  # the vehicles' and the server's own
            new.verify_directly_issued_by(root)
        assert (startup / f"{name}.key").stat().st_mode & 0o077 == 0
    names = x509.load_pem_x509_certificate((server / "server.crt").read_bytes()).extensions
    alternative = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == ["localhost"]


def test_the_list_says_who_may_take_part_and_until_when(fleet: Fleet) -> None:
    add_vehicle(fleet, "car-2")
    revoke_vehicle(fleet, "car-2")
    hand_over(fleet, "car-2")
    told = json.loads(fleetseg("fleet", "list", "--fleet", fleet.folder, "--json"))
    ends = certificate_end(fleet.kit("car-1") / "startup" / "client.crt")
    first = {"name": "car-1", "revoked": False, "certificate_until": f"{ends:%Y-%m-%d}"}
    assert told["vehicles"][0] == {**first, "key_here": True}
    assert (told["vehicles"][1]["revoked"], told["vehicles"][1]["key_here"]) == (True, False)
    text = fleetseg("fleet", "list", "--fleet", fleet.folder)
    assert "revoked" in text
    assert "vehicle and here" in text


# Real processes


class Carried(RealFleet):
    """Vehicles that run from kits that were carried away."""

    def kit(self, car: str) -> Path:
        return self.folder / f"at-{car}" / "kit"

    def carry(self, car: str, what: str = "") -> None:
        source = self.fleet / "kits" / car / what
        shutil.copytree(source, self.kit(car) / what, dirs_exist_ok=True)

    def start_server(self, *options: str) -> None:
        patient = ("federation.deadline_s=120", "federation.max_failed_rounds=50")
        super().start_server(*(f"--set={setting}" for setting in patient), *options)

    def operator(self, *words: str | Path) -> str:
        done = h.fleetseg("fleet", *words, log=self.folder / "operator.log")
        assert done.wait() == 0, done.text
        return done.text


@pytest.fixture
def carried(tmp_path: Path) -> Iterator[Carried]:
    with h.nothing_left(tmp_path):
        made = Carried(tmp_path, vehicles=2)
        try:
            yield made
        finally:
            made.stop()


@pytest.mark.fleet_full
def test_old_and_new_certificates_serve_side_by_side(carried: Carried) -> None:
    """Two kits of the server's making, one key of a vehicle's own; one of them changes."""
    fleet, everybody = carried.fleet, ["car-1", "car-2", "car-3"]
    for car in ("car-1", "car-2"):
        carried.carry(car)
        carried.operator("handed", car, "--fleet", fleet)
    carried.operator("request", "car-3", "--kit", carried.kit("car-3"))
    carried.operator("sign", carried.kit("car-3") / "car-3.csr", "--fleet", fleet)
    carried.carry("car-3")
    assert not list(fleet.glob("kits/**/*.key"))
    for car in everybody:
        carried.start_client(car)
    carried.start_server()
    carried.until_round("all three serve", lambda r: r["ok"] == everybody)

    carried.operator("rotate", "car-1", "--fleet", fleet)
    carried.clients["car-1"].interrupt()
    assert carried.clients["car-1"].wait(60) == 0
    carried.carry("car-1", "startup")
    carried.start_client("car-1")
    carried.until_round("a new certificate beside old ones", lambda r: r["ok"] == everybody)

    carried.operator("revoke", "car-2", "--fleet", fleet)
    carried.until_round("a round without car-2", lambda r: "car-2" not in r["cohort"])
    carried.operator("unrevoke", "car-2", "--fleet", fleet)
    carried.until_round("a round with car-2 again", lambda r: "car-2" in r["ok"])


@pytest.mark.fleet_full
def test_running_vehicles_serve_a_server_whose_certificates_are_new(carried: Carried) -> None:
    carried.carry("car-1")
    carried.start_client("car-1")
    carried.start_server()
    carried.until_round("it serves", lambda r: r["ok"] == ["car-1"])
    carried.server.interrupt()
    assert carried.server.wait(90) == 130
    carried.operator("rotate", "--server", "--fleet", carried.fleet)
    carried.start_server("--resume")
    carried.until_round("a new root beside the old one", lambda r: r["ok"] == ["car-1"])
    carried.operator("rotate", "car-1", "--fleet", carried.fleet)
    carried.clients["car-1"].interrupt()
    assert carried.clients["car-1"].wait(60) == 0
    carried.carry("car-1", "startup")
    carried.start_client("car-1")
    carried.until_round("all of it is new", lambda r: r["ok"] == ["car-1"])
