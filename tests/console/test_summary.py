"""The end of a run whose parts may be absent: a test set, the vehicles' scores, both."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tests.records import SPACE, conf, record, scored
from typer.testing import CliRunner

from fleetseg.cli.app import app
from fleetseg.config import Experiment
from fleetseg.console.summary import show_end, show_local
from fleetseg.console.tables import iou_table, score_lines
from fleetseg.evaluation.scored import Scored
from fleetseg.runs.folder import read_end
from fleetseg.runs.records import RunEnd
from fleetseg.runs.run import Run

ONE = scored(0.25)
VEHICLES = {"car-1": conf(0.25), "car-2": conf(0.75)}
NOTHING = np.zeros((2, 2), np.int64)
SCORES: dict[str, Scored | None] = {
    "none": None,
    "vehicles only": Scored(SPACE).with_clients(VEHICLES, "training frames"),
    "server only": ONE,
    "several domains": Scored(SPACE, {"day": conf(0.5), "rain": conf(0.25)}, ("a",)),
    "server and vehicles": ONE.with_clients(VEHICLES, "held-out frames"),
    "personal": ONE.with_clients(VEHICLES, "held-out frames").with_personal(
        {"car-1": conf(0.5), "car-3": conf(0.375)}, "fine-tuned"
    ),
    "no vehicle answered": Scored(SPACE).with_clients({}, "training frames"),
    "vehicles without a figure": Scored(SPACE).with_clients({"car-1": NOTHING}, "training frames"),
}


def run(scores: Scored | None, folder: Path, reason: str = "rounds") -> Run:
    return Run(folder, Experiment(), reason, (record(),), scores, "f" * 64, space=SPACE)


def shown(made: Run, style: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    show_end(made, style, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("style", ["plain", "live", "quiet", "json"])
def test_every_end_is_shown(
    name: str, style: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = SCORES[name]
    written = RunEnd("rounds", 1, 2.0, scores, 1, "f" * 64).to_dict()
    (tmp_path / "rounds.jsonl").write_text(json.dumps({"event": "end", **written}))
    text = shown(run(scores, tmp_path), style)
    if style == "json":
        assert json.loads(capsys.readouterr().out)["scores"] == written["scores"]
    else:
        assert "f" * 64 in text


def test_personal_scores_stand_beside_the_global_ones_and_the_worst_is_named(
    tmp_path: Path,
) -> None:
    table = shown(run(SCORES["personal"], tmp_path), "plain")
    rows = {line.split()[0]: line.split()[1:3] for line in table.splitlines() if "car-" in line}
    assert rows["car-1"] == ["0.250", "0.500"]
    assert "own mIoU" in table
    assert "worst vehicle: mIoU 0.250 (car-1), of its own model 0.375 (car-3)" in table
    assert "worst vehicle: mIoU 0.250 (car-1)\n" in shown(
        run(SCORES["server and vehicles"], tmp_path), "plain"
    )


def test_vehicles_alone_have_their_table_and_their_line(tmp_path: Path) -> None:
    made = run(SCORES["vehicles only"], tmp_path)
    table = shown(made, "plain")
    assert "on its training frames" in table
    assert "car-1" in table
    assert "0.750" in table
    quiet = shown(made, "quiet")
    assert "mIoU of 2 vehicles, on their training frames: 0.250 to 0.750" in quiet


def test_nothing_scored_is_said(tmp_path: Path) -> None:
    assert "nothing was scored" in shown(run(None, tmp_path), "plain")


def test_a_reason_of_another_version(tmp_path: Path) -> None:
    assert "after 1 round: bored" in shown(run(None, tmp_path, "bored"), "plain")


@pytest.mark.parametrize("style", ["plain", "quiet"])
def test_vehicles_alone_without_scores(style: Any, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120)
    show_local({"car-1": run(None, tmp_path)}, style, console)
    assert "nothing to score on" in console.file.getvalue()  # type: ignore[attr-defined]


def test_tables_of_nothing() -> None:
    assert score_lines({}, ("a",)) == []
    assert score_lines({"by_client": {}}, ()) == []
    assert iou_table({}, ()).row_count == 0


EXPERIMENT = """
name = "gone"
[data]
size = [48, 64]
sources = [{cities = ["amber"], conditions = ["day"], frames_per_drive = 2}]
[federation]
rounds = 2
faults = {dropout = 1.0}
[engine]
kind = "inprocess"
"""


@pytest.mark.parametrize("style", [[], ["--quiet"], ["--json"], ["--baseline", "local"]])
def test_a_run_without_one_used_update_is_a_failure(tmp_path: Path, style: list[str]) -> None:
    (tmp_path / "x.toml").write_text(EXPERIMENT)
    out = tmp_path / "run"
    words = ["run", str(tmp_path / "x.toml"), "--out", str(out), *style]
    done = CliRunner().invoke(app, words, env={"FLEETSEG_CACHE": str(tmp_path / "cache")})
    if "local" in style:  # a vehicle alone does not vanish
        assert done.exit_code == 0, done.output
        return
    assert done.exit_code == 1
    assert "no update was used in 2 rounds: " in done.stderr
    end = read_end(out)
    assert end is not None
    assert end["reason"] == "no-update"
