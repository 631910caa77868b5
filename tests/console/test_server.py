"""`fleetseg server` up to the run and after it: what is shown, and how to go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.records import record

from fleetseg import api
from fleetseg.config import Experiment
from fleetseg.console.server import serve_and_show
from fleetseg.errors import EngineError, FolderInUse
from fleetseg.runs.run import Run

EXPERIMENT = 'name = "x"\n[federation]\nrounds = 2\ncohort = 0.5\n'


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment beside a fleet's folder, without its keys; one of its vehicles is revoked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(EXPERIMENT)
    fields = {
        "host": "localhost", "port": 8102, "vehicles": ["a", "b", "c"], "revoked": ["c"],
    }  # fmt: skip
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "fleet.json").write_text(json.dumps(fields))
    return tmp_path


def serve(**changes: Any) -> int:
    how = {"out": None, "resume": False, "as_json": False, "quiet": False, **changes}
    return serve_and_show(Path("x.toml"), ["federation.rounds=1"], fleet=Path("fleet"), **how)


def pretend(monkeypatch: pytest.MonkeyPatch, end: Exception | type[BaseException] | str) -> None:
    """Serve by opening a round and ending: with an error, or a run that stopped for a reason."""

    def serving(experiment: Experiment, fleet: Path, *, out: Path, watcher: Any, **_: Any) -> Run:
        watcher.round_opened(1, ["a"])
        out.mkdir(parents=True)
        (out / "experiment.toml").touch()
        if not isinstance(end, str):
            raise end
        return Run(out, experiment, end, (record(),), None, "f" * 64)

    monkeypatch.setattr(api, "serve", serving)


GO_ON = "resume with: fleetseg server --fleet fleet x.toml --set federation.rounds=1 --resume --out"


def test_the_heading_counts_the_vehicles_that_may_take_part(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "rounds")
    assert serve(out=Path("run")) == 0
    said = capsys.readouterr()
    assert said.out.startswith("x · fleet of 2 vehicles · asks 1 of 2 a round · fast_scnn\n")
    assert "stopped     after 1 round: all rounds are done" in said.out
    assert GO_ON not in said.err


def test_it_ends_with_the_page_as_a_run_does(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []

    def page(runs: list[Path], out: None) -> Path:
        made.extend(runs)
        return runs[0] / "report.html"

    monkeypatch.setattr("fleetseg.console.report.write_report", page)
    pretend(monkeypatch, "rounds")
    assert serve(out=Path("run")) == 0
    assert made == [Path("run")]
    assert "report      run/report.html\n" in capsys.readouterr().out
    assert serve(out=Path("quiet"), quiet=True) == 0
    assert "report" not in capsys.readouterr().out


def test_an_interrupted_run_says_how_to_go_on(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "interrupted")
    assert serve() == 130
    assert f"interrupted; {GO_ON} runs/x\n" in capsys.readouterr().err


def test_so_does_one_that_failed(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, EngineError("the port is taken"))
    with pytest.raises(EngineError):
        serve()
    assert f"{GO_ON} runs/x\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "words"),
    [(KeyboardInterrupt, "interrupted before the first round\n"), (FolderInUse("in use"), "")],
)
def test_where_there_is_nothing_to_go_on_with(
    fleet: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: Any,
    words: str,
) -> None:
    pretend(monkeypatch, end)
    if end is KeyboardInterrupt:
        assert serve() == 130
    else:
        with pytest.raises(FolderInUse):
            serve()
    assert capsys.readouterr().err == words
