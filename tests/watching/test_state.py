"""How far a watched run is: one sentence, and a version that changes with the folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tests.records import record
from tests.run_folders import run_folder

from fleetseg.errors import CheckpointError
from fleetseg.runs.lock import LOCK
from fleetseg.watching.state import RunState, is_at_work, require_run, state_of

TEN = {"federation": {"rounds": 10}}


def look(folder: Path) -> RunState:
    return state_of(folder, RunState())


def hold(folder: Path, pid: int, host: str = "") -> None:
    """Write the lock file of a process."""
    facts = {"pid": pid, "host": host or platform.node(), "since": "now"}
    (folder / LOCK).write_text(json.dumps(facts))


def test_a_run_at_work_says_which_round_is_in_and_what_it_scores(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "one", [0.25, None], reason="", **TEN)
    hold(folder, os.getpid())
    state = look(folder)
    assert state.sentence == "Round 2 of 10 is done, mIoU 0.250"
    assert not state.is_over
    assert state.last is not None
    assert state.last.round == 2


def test_before_the_first_round_is_over(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "one", [0.25], reason="", **TEN)
    (folder / "rounds.jsonl").write_text("")
    hold(folder, os.getpid())
    assert look(folder).sentence == "Working on round 1 of 10"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("rounds", "The run is over, all rounds are done: round 1 of 10, mIoU 0.250"),
        ("interrupted", "The run is over, it was interrupted: round 1 of 10, mIoU 0.250"),
        ("failed", "The run is over, failed: round 1 of 10, mIoU 0.250"),
    ],
)
def test_a_run_that_is_over_says_why(tmp_path: Path, reason: str, told: str) -> None:
    state = look(run_folder(tmp_path / "one", [0.25], reason=reason, **TEN))
    assert state.sentence == told
    assert state.is_over


def test_a_run_whose_process_was_killed_is_not_over(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "one", [0.25], reason="", **TEN)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    hold(folder, gone.pid)
    state = look(folder)
    assert state.sentence == "No process is working on this run: round 1 of 10"
    assert not state.is_over


def test_who_is_at_work_goes_by_the_process_and_its_host(tmp_path: Path) -> None:
    assert not is_at_work(tmp_path)
    hold(tmp_path, os.getpid())
    assert is_at_work(tmp_path)
    hold(tmp_path, 2**22, "another host")  # whose processes are not ours to see
    assert is_at_work(tmp_path)
    (tmp_path / LOCK).write_text("half a l")
    assert not is_at_work(tmp_path)


def test_a_version_lasts_until_something_changes(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "one", [0.25], reason="", **TEN)
    first = look(folder)
    assert state_of(folder, first) is first
    with open(folder / "rounds.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(record(2).to_dict()) + "\n")
    second = state_of(folder, first)
    assert second.version != first.version
    hold(folder, os.getpid())
    assert state_of(folder, second).version != second.version


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "one", [0.25])
    (folder / "experiment.toml").write_text("seed = [")
    assert look(folder).sentence.startswith("The run cannot be read: ")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="Start the run first"):
        require_run(tmp_path)
