"""`fleetseg fleet publish`: who drives the release, who does not, and the exit code of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleetseg.console import publish
from fleetseg.console.publish import publish_and_show
from fleetseg.release.to_vehicles import Published


def shown(monkeypatch: pytest.MonkeyPatch, done: Published, **changes: Any) -> int:
    monkeypatch.setattr(publish, "publish_to_vehicles", lambda *_, **__: done)
    as_json = changes.get("as_json", False)
    return publish_and_show(Path("models"), None, Path("my fleet"), 1.0, as_json=as_json)


def test_all_drive_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(monkeypatch, Published(2, "d", ("a", "b"))) == 0
    assert capsys.readouterr().out == "release 0002: 2 vehicles drive it\n"


def test_who_does_not_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Published(12, "d", ("a",), {"b": "digest: no"}, {"c": "away"})
    assert shown(monkeypatch, done) == 3
    said = capsys.readouterr().out
    assert "release 0012: 1 vehicle drives it\n" in said
    assert "b refuses it: digest: no\n" in said
    assert "c: away\n" in said
    assert "they get it from this fleet's next server" in said
    assert "fleetseg fleet status --fleet 'my fleet'" in said
    running = Published(1, "d", (), {}, {"c": "no answer yet"}, server_runs=True)
    assert shown(monkeypatch, running) == 3
    assert "the running server keeps handing it out" in capsys.readouterr().out


def test_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = Published(2, "d", ("a",), {}, {"c": "away"})
    assert shown(monkeypatch, done, as_json=True) == 3
    assert json.loads(capsys.readouterr().out) == {
        "number": 2, "digest": "d", "drives": ["a"], "refused": {}, "missing": {"c": "away"},
        "server_runs": False,
    }  # fmt: skip
