"""Releases in a vehicle's folder: whole or not there, and one of them is driven."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from fleetseg.errors import UpdateRejected
from fleetseg.fleet.held_releases import current_release, digest_of, drive, read_told, store
from fleetseg.release.registry import releases


def files(version: int) -> dict[str, bytes]:
    return {"config.json": b"{}", "model.safetensors": b"weights %d" % version}


def driven(models: Path, number: int) -> Any:
    store(models, number, files(number))
    return drive(models, number)


def test_a_release_is_stored_and_driven(tmp_path: Path) -> None:
    assert current_release(tmp_path) is None
    held = driven(tmp_path, 2)
    assert held == current_release(tmp_path)
    assert held.folder == tmp_path / "0002"
    assert (held.folder / "model.safetensors").read_bytes() == b"weights 2"
    assert held.told() == {"release": 2, "digest": held.digest}
    assert read_told(held.told()) == held.told()


def test_the_folder_is_a_registry_as_the_server_s(tmp_path: Path) -> None:
    driven(tmp_path, 1)
    driven(tmp_path, 2)
    known = releases(tmp_path)
    assert [(one.number, one.is_current, one.damage) for one in known] == [
        (1, False, ""), (2, True, ""),
    ]  # fmt: skip


def test_a_damaged_release_is_not_driven(tmp_path: Path) -> None:
    held = driven(tmp_path, 1)
    (held.folder / "config.json").write_bytes(b"[]")
    assert current_release(tmp_path) is None
    with pytest.raises(UpdateRejected):
        drive(tmp_path, 1)
    assert driven(tmp_path, 1) == held  # mended by the same number


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = driven(tmp_path, 1)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store(tmp_path, 2, files(2))
    monkeypatch.undo()
    assert current_release(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001", "current"]


def test_old_releases_go_and_the_one_that_is_driven_stays(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4, 5):
        driven(tmp_path, number)
        os.utime(tmp_path / f"{number:04d}", (number, number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0003", "0004", "0005", "current"]
    drive(tmp_path, 3)  # back to the oldest
    driven(tmp_path, 6)
    driven(tmp_path, 3)
    assert (tmp_path / "0003").is_dir()


@pytest.mark.parametrize(
    "told", [None, {}, {"release": 1}, {"release": "1", "digest": "0" * 64},
             {"release": 1, "digest": "0"}, {"release": 0, "digest": "0" * 64}, [1]]
)  # fmt: skip
def test_what_a_vehicle_says_is_read_with_care(told: Any) -> None:
    assert read_told(told) == {}


def test_a_digest_is_over_names_and_bytes() -> None:
    one = digest_of({"a": "0", "b": "1"})
    assert one == digest_of({"b": "1", "a": "0"})
    assert one != digest_of({"a": "1", "b": "0"})
