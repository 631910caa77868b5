"""What a host allows, each with its cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetseg.doctor import host
from fleetseg.doctor.findings import Finding


def details(look: Callable[[], Iterator[Finding]]) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.detail) for finding in look()]


def test_cores_that_may_be_used_of_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "allowed_cores", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr(host, "cpu_quota", lambda: None)
    assert host.cores() == "2 of 64 cores (this process's; that many workers are started)"
    monkeypatch.setattr(host, "cpu_quota", lambda: 1.5)
    assert "a container's share of 1.5" in host.cores()


@pytest.mark.parametrize(
    ("limit", "verdict"), [(None, "ok"), (1024, "ok"), (128, "note"), (32, "fail")]
)
def test_open_files(monkeypatch: pytest.MonkeyPatch, limit: int | None, verdict: str) -> None:
    monkeypatch.setattr(host, "open_files_limit", lambda: limit)
    ((found, detail),) = details(host.open_files)
    assert found == verdict
    assert verdict == "ok" or "ulimit -n 4096" in detail


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "home", lambda: None)
    monkeypatch.setattr(host, "_known_user", lambda: False)
    ((verdict, detail),) = details(host.user)
    assert verdict == "note"
    assert "no home folder: set HOME and FLEETSEG_CACHE" in detail


def test_variables_that_do_not_say_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("FLEETSEG_DATA", str(tmp_path / "none"))
    assert [verdict for verdict, _ in details(host.variables)] == ["note", "note"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("FLEETSEG_DATA", "~")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert details(host.variables) == [("ok", f"FLEETSEG_DATA is {tmp_path}")]


def test_a_working_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    ((verdict, detail),) = details(host.working_folder)
    assert verdict == "note"
    assert "--out DIR" in detail


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "none")

    monkeypatch.setattr("tempfile.gettempdir", none)
    ((verdict, detail),) = details(host.temporary)
    assert verdict == "fail"
    assert "Set TMPDIR" in detail
