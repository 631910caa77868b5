from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetseg.console import doctor
from fleetseg.console import host_checks as host
from fleetseg.console.findings import Finding
from fleetseg.data.store import folder as cache_folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_PROBE_S", 0.01)
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "cache"))


def test_a_sound_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert doctor.examine_and_show() == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "processor", "memory", "[zoo]", "images/s", "ready"):
        assert word in out
    assert str(tmp_path / "cache") in out


def test_a_cache_that_cannot_be_written_is_told_with_its_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "file"))
    assert doctor.examine_and_show() == 1
    assert "set FLEETSEG_CACHE" in capsys.readouterr().out


def test_a_broken_package_does_not_break_the_doctor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def _graphics() -> Iterator[doctor.Finding]:
        raise RuntimeError("driver\nmismatch")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (_graphics,))
    assert doctor.examine_and_show() == 1
    assert "✗ graphics     RuntimeError: driver mismatch" in capsys.readouterr().out


def test_a_missing_extra_is_a_note_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_EXTRAS", {"zoo": ("no-such-package",)})
    (finding,) = doctor._extras()
    assert finding.verdict == "note"
    assert finding.detail == "without no-such-package; pip install 'fleetseg[zoo]'"


def test_it_knows_all_extras_for_users() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(doctor._EXTRAS) == set(extras) - {"dev"}


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


def test_the_cache_of_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLEETSEG_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache_folder, "home", lambda: None)
    monkeypatch.setattr(cache_folder, "temporary_folder", lambda: tmp_path)
    ((verdict, detail),) = details(doctor._cache)
    assert verdict == "note"
    assert "set FLEETSEG_CACHE to a folder that lasts" in detail
