"""What a machine has, and what it lacks, each with its cure."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fleetseg.data.store import folder as cache_folder
from fleetseg.doctor import machine


def test_a_missing_extra_is_a_note_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_EXTRAS", {"zoo": ("no-such-package",)})
    (finding,) = machine.extras()
    assert finding.verdict == "note"
    assert finding.detail == "without no-such-package; pip install 'fleetseg[zoo]'"


def test_it_knows_all_extras_for_users() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    extras = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(machine._EXTRAS) == set(extras) - {"dev", "docs"}


def test_the_cache_of_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FLEETSEG_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache_folder, "home", lambda: None)
    monkeypatch.setattr(cache_folder, "temporary_folder", lambda: tmp_path)
    (finding,) = machine.cache()
    assert finding.verdict == "note"
    assert "set FLEETSEG_CACHE to a folder that lasts" in finding.detail
