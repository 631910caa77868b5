from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetseg.console import doctor


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
