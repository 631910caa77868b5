"""A revocation stands, whoever writes the fleet's folder meanwhile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleetseg.errors import ConfigError
from fleetseg.fleet.nvflare import provision
from fleetseg.fleet.nvflare.provision import (
    Fleet,
    add_vehicle,
    read_fleet,
    revoke_vehicle,
    unrevoke_vehicle,
)
from fleetseg.fleet.nvflare.revocations import note, read_revoked

pytest.importorskip("nvflare")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    made = Fleet(tmp_path, "localhost", 1, ("car-1", "car-2"))
    made.save()
    return made


def test_the_last_line_about_a_vehicle_counts(fleet: Fleet) -> None:
    assert revoke_vehicle(fleet, "car-2").active == ("car-1",)
    assert unrevoke_vehicle(fleet, "car-2").active == ("car-1", "car-2")
    assert revoke_vehicle(fleet, "car-1").active == ("car-2",)
    assert read_fleet(fleet.folder).revoked == ("car-1",)
    lines = (fleet.folder / "revocations.jsonl").read_text().splitlines()
    assert [json.loads(line)["revoked"] for line in lines] == [True, False, True]


def test_an_addition_does_not_undo_a_revocation_made_meanwhile(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the file system has no locks, so that the two do not wait for each other."""

    @contextlib.contextmanager
    def no_lock(folder: Path) -> Iterator[None]:
        yield

    monkeypatch.setattr(provision, "changing", no_lock)
    monkeypatch.setattr(provision, "new_kit", lambda *args: revoke_vehicle(fleet, "car-2"))
    add_vehicle(fleet, "car-3")
    there = read_fleet(fleet.folder)
    assert (there.vehicles, there.revoked) == (("car-1", "car-2", "car-3"), ("car-2",))


def test_who_an_earlier_version_revoked_stays_revoked(fleet: Fleet) -> None:
    Fleet(fleet.folder, "localhost", 1, ("car-1", "car-2", "car-3"), ("car-3",)).save()
    assert read_fleet(fleet.folder).revoked == ("car-3",)
    assert revoke_vehicle(read_fleet(fleet.folder), "car-1").revoked == ("car-1", "car-3")
    assert unrevoke_vehicle(fleet, "car-3").revoked == ("car-1",)


def test_a_line_that_a_crash_cut_off_was_never_said_to_be_done(tmp_path: Path) -> None:
    note(tmp_path, ["a"], revoked=True)
    path = tmp_path / "revocations.jsonl"
    path.write_bytes(path.read_bytes() + b'{"vehicle": "b", "rev')
    assert read_revoked(tmp_path) == ("a",)
    note(tmp_path, ["c"], revoked=True)
    assert read_revoked(tmp_path) == ("a", "c")


@pytest.mark.parametrize("line", ["{", "[]", '{"vehicle": "b"}', "7", ""])
def test_a_damaged_list_lets_nobody_in(tmp_path: Path, line: str) -> None:
    note(tmp_path, ["a"], revoked=True)
    with open(tmp_path / "revocations.jsonl", "a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ConfigError, match=r"revocations.jsonl: line 2 cannot be read"):
        read_revoked(tmp_path)


def test_a_running_server_lets_in_who_is_no_longer_revoked(fleet: Fleet) -> None:
    from fleetseg.fleet.nvflare.network import NvflareNetwork

    calls: list[tuple[str, str]] = []
    session = SimpleNamespace(
        disable_client=lambda name: calls.append(("refuse", name)),
        enable_client=lambda name: calls.append(("let in", name)),
    )
    dispatcher: Any = SimpleNamespace(job="")
    network = NvflareNetwork(fleet, dispatcher, fleet.folder / "link", 1.0)
    network._session = session
    network._registered = {"car-1": 0.0, "stranger": 0.0}
    revoke_vehicle(fleet, "car-2")
    network._keep_revoked()
    assert sorted(calls) == [("refuse", "car-2"), ("refuse", "stranger")]
    network._registered = {"car-1": 0.0}  # who is refused is no longer connected
    unrevoke_vehicle(fleet, "car-2")
    network._keep_revoked()
    assert calls[2:] == [("let in", "car-2")]
    assert network.revoked() == frozenset()
