"""What `fleetseg doctor` prints, and its exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetseg.console.doctor import examine_and_show
from fleetseg.doctor import examine, machine
from fleetseg.doctor.findings import Finding


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_PROBE_S", 0.01)
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "cache"))


def test_a_sound_machine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert examine_and_show() == 0
    out = capsys.readouterr().out
    for word in ("python", "torch", "processor", "memory", "[zoo]", "images/s", "ready"):
        assert word in out
    assert str(tmp_path / "cache") in out


def test_a_cache_that_cannot_be_written_is_told_with_its_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "file"))
    assert examine_and_show() == 1
    assert "set FLEETSEG_CACHE" in capsys.readouterr().out


def test_a_broken_package_does_not_break_the_doctor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def graphics() -> Iterator[Finding]:
        raise RuntimeError("driver\nmismatch")
        yield

    monkeypatch.setattr(examine, "CHECKS", (graphics,))
    assert examine_and_show() == 1
    assert "✗ graphics     RuntimeError: driver mismatch" in capsys.readouterr().out
