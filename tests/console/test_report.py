"""The page at the end of a run: how to open it, and no error for the run if it cannot be made."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.run_folders import run_folder

from fleetseg.console import report
from fleetseg.errors import MissingExtra


def told(runs: list[Path], **how: Any) -> str:
    text = io.StringIO()
    report.end_with_page(runs, Console(file=text, width=200), **how)
    return text.getvalue()


def test_it_says_where_the_page_is_and_how_to_open_it(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [0.5])
    said = told([run])
    assert str(run / "report.html") in said
    assert (run / "report.html").resolve().as_uri() in said
    assert told([run], silent=True) == ""


def test_without_the_extra_it_hints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Path:
        raise MissingExtra("jinja2", "report", "the report page")

    monkeypatch.setattr(report, "write_report", missing)
    assert "pip install 'fleetseg[report]'" in told([tmp_path])


def test_a_page_that_fails_is_a_note(tmp_path: Path) -> None:
    assert told([tmp_path / "no run"]).startswith("no page: ")
