"""`fleetseg watch` says where the page is and how far the run is, until Ctrl-C."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from tests.run_folders import run_folder

from fleetseg.console import watch
from fleetseg.errors import CheckpointError, ConfigError

pytest.importorskip("jinja2")


def test_the_page_is_where_the_terminal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "one", [0.25], federation={"rounds": 1})
    told, pages = [], []

    def look_and_leave(seconds: float) -> None:
        told.append(capsys.readouterr().out)
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", told[0].replace("\n", ""))
        with urllib.request.urlopen(address, timeout=20) as answer:
            pages.append(answer.read().decode())
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", look_and_leave)
    watch.watch_and_show(folder, None, 0)
    assert "all rounds are done: round 1 of 1" in told[0].replace("\n", " ")
    assert "id=live" in pages[0]


def test_what_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to watch"):
        watch.watch_and_show(tmp_path, None, 0)
    folder = run_folder(tmp_path / "one", [0.25])
    with pytest.raises(ConfigError):
        watch.watch_and_show(folder, tmp_path / "no-fleet", 0)
