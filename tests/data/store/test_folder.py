"""Where decoded samples go on a host without a home, and with variables as files write them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fleetseg import hosts
from fleetseg.data.store import folder as module
from fleetseg.data.store.folder import cache_folder, default_cache_dir
from fleetseg.errors import DataError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("FLEETSEG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "temporary_folder", lambda: tmp_path)


def test_a_home(tmp_path: Path) -> None:
    assert cache_folder() == module.CacheFolder(tmp_path / "home" / ".cache" / "fleetseg")


def test_a_tilde_in_the_variable_is_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLEETSEG_CACHE", "~/fs")
    assert default_cache_dir() == tmp_path / "home" / "fs"
    monkeypatch.setenv("FLEETSEG_CACHE", "$HOME/fs")
    assert default_cache_dir() == tmp_path / "home" / "fs"
    monkeypatch.setenv("FLEETSEG_CACHE", "fs")
    assert default_cache_dir() == Path.cwd() / "fs"


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "fleetseg"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # its specification says: ignore
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "fleetseg"


@pytest.mark.parametrize("fault", ["none", "not writable"])
def test_without_a_home_a_temporary_folder_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: str
) -> None:
    if fault == "none":
        monkeypatch.setattr(module, "home", lambda: None)
    else:
        monkeypatch.setattr(module, "can_write", lambda folder: False)
    chosen = cache_folder()
    assert chosen.path == tmp_path / f"fleetseg-{os.getuid()}"
    assert "set FLEETSEG_CACHE" in chosen.note
    assert stat.S_IMODE(chosen.path.stat().st_mode) == 0o700
    assert cache_folder() == chosen


def test_somebody_elses_temporary_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "home", lambda: None)
    owner = os.getuid()
    (tmp_path / f"fleetseg-{owner + 1}").mkdir()
    monkeypatch.setattr("os.getuid", lambda: owner + 1)
    with pytest.raises(DataError, match=r"another user.*Set FLEETSEG_CACHE"):
        cache_folder()


def test_no_entry_in_passwd_and_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    assert hosts.home() is None


def test_what_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert hosts.can_write(tmp_path / "not" / "there")
    assert not hosts.can_write(tmp_path / "file")
    assert not hosts.can_write(tmp_path / "file" / "below")


def test_a_process_of_an_unknown_user_without_a_home(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("another user's process needs root and setpriv")
    code = "from fleetseg.data.store.folder import cache_folder; print(cache_folder())"
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "FLEETSEG_CACHE")}
    told = subprocess.run(
        ["setpriv", "--reuid", "54321", "--clear-groups", sys.executable, "-c", code],
        env={**environment, "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ModuleNotFoundError" in told.stderr or "Permission denied" in told.stderr:
        pytest.skip("the other user may not read this installation")
    shutil.rmtree("/tmp/fleetseg-54321", ignore_errors=True)
    assert told.returncode == 0, told.stderr
    assert "/tmp/fleetseg-54321" in told.stdout
    assert "set FLEETSEG_CACHE" in told.stdout
