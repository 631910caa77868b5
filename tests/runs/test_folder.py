"""The run folder: its layout, resuming, and what a crash or a full disk leaves."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from tests import records
from tests.records import failed

from fleetseg.config import Experiment, FederationConfig
from fleetseg.data.partition.manifest import Entry, Manifest
from fleetseg.errors import CheckpointError
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.tensors import ModelState
from fleetseg.runs.folder import (
    RunFolder,
    can_resume,
    changed_since,
    environment,
    has_run,
    read_end,
    read_experiment,
    read_records,
    require_same_experiment,
)
from fleetseg.runs.records import RunEnd

EXPERIMENT = Experiment(name="demo", federation=FederationConfig(rounds=5))
MANIFEST = Manifest({"a": (Entry("img-1", "0" * 64, "1" * 64),)})


def state(round_: int) -> ServerState:
    model = ModelState(torch.full((4,), float(round_)), torch.tensor([round_]))
    return ServerState(round_, model)


def record(round_: int) -> RoundRecord:
    failures = (failed("b", "lost"),) if round_ == 2 else ()
    return records.record(
        round_, loss=1 / round_, failures=failures, scored=records.scored(1 / (1 + round_))
    )


def folder_at(path: Path, experiment: Experiment = EXPERIMENT) -> RunFolder:
    return RunFolder(path, experiment, "f" * 64, records.SPACE)


def commit(folder: RunFolder, round_: int) -> None:
    folder.commit(state(round_), record(round_))
    folder.publish(record(round_))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of four committed rounds."""
    folder = folder_at(tmp_path / "run")
    folder.create(EXPERIMENT, {"fleetseg": "0"}, state(0), MANIFEST)
    for round_ in (1, 2, 3, 4):
        commit(folder, round_)
    return folder


def log(run: RunFolder) -> Path:
    return run.path / "rounds.jsonl"


def resumed(run: RunFolder) -> tuple[RunFolder, ServerState, list[str]]:
    again = folder_at(run.path)
    found, damaged = again.resume()
    return again, found, damaged


def assert_rounds(run: RunFolder, last: int) -> None:
    """The log has each round once, in memory and on the disk."""
    expected = [record(r).to_dict() for r in range(1, last + 1)]
    assert [r.to_dict() for r in run.records] == expected
    assert [json.loads(line) for line in log(run).read_text().splitlines()] == expected


def test_layout_of_a_new_run(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "a" / "run")
    assert not has_run(folder.path)
    folder.create(EXPERIMENT, environment("cpu", "fp32"), state(0), MANIFEST)
    assert has_run(folder.path)
    assert can_resume(folder.path)
    assert sorted(p.name for p in folder.path.iterdir()) == [
        "checkpoints",
        "environment.json",
        "experiment.toml",
        "manifest.json",
        "rounds.jsonl",
    ]
    assert read_experiment(folder.path) == EXPERIMENT
    assert Manifest.read(folder.path / "manifest.json") == MANIFEST
    facts = json.loads((folder.path / "environment.json").read_text())
    assert {"fleetseg", "python", "torch", "cpu_capability", "device", "precision"} <= set(facts)
    assert log(folder).read_text() == ""
    assert list(folder.records) == []


def test_create_refuses_a_folder_that_holds_a_run(run: RunFolder) -> None:
    before = log(run).read_bytes()
    with pytest.raises(CheckpointError, match=r"run: this folder already holds a run\. .*--resume"):
        folder_at(run.path).create(EXPERIMENT, {}, state(0), None)
    assert log(run).read_bytes() == before


def test_a_crash_while_laying_out_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_at(tmp_path)
    monkeypatch.setattr("fleetseg.runs.folder.to_toml", lambda e: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        folder.create(EXPERIMENT, {}, state(0), None)
    monkeypatch.undo()
    assert not has_run(tmp_path)
    assert not can_resume(tmp_path)
    folder.create(EXPERIMENT, {}, state(0), None)
    assert can_resume(tmp_path)


def test_resume_before_the_first_round(tmp_path: Path) -> None:
    folder_at(tmp_path).create(EXPERIMENT, {}, state(0), None)
    folder = folder_at(tmp_path)
    found, damaged = folder.resume()
    assert (found.round, damaged, list(folder.records)) == (0, [], [])


def test_resume(run: RunFolder) -> None:
    again, found, damaged = resumed(run)
    assert found.round == 4
    assert found.model.values_F.tolist() == [4.0] * 4
    assert damaged == []
    assert_rounds(again, 4)
    commit(again, 5)
    assert_rounds(again, 5)


def test_crash_between_checkpoint_and_log_line(run: RunFolder) -> None:
    lines = log(run).read_text().splitlines(keepends=True)
    log(run).write_text("".join(lines[:3]))
    again, found, _ = resumed(run)
    assert found.round == 4
    assert_rounds(again, 4)


@pytest.mark.parametrize("cut", [1, 2, 20, 10_000])
def test_half_a_last_line(run: RunFolder, cut: int) -> None:
    lines = log(run).read_text().splitlines(keepends=True)
    log(run).write_text("".join(lines[:3]) + lines[3][:-cut])
    again, _, _ = resumed(run)
    assert_rounds(again, 4)


def test_half_a_character_and_a_line_that_is_no_record(run: RunFolder) -> None:
    lines = log(run).read_bytes().splitlines(keepends=True)
    for last in (b'{"round": 4, "x": "\xc3', b"4\n", b"[4]\n", b"null\n", b"\0" * 80):
        log(run).write_bytes(b"".join(lines[:3]) + last)
        assert [r["round"] for r in read_records(run.path)] == [1, 2, 3]
        again, _, _ = resumed(run)
        assert_rounds(again, 4)


def test_log_ahead_of_a_damaged_checkpoint(run: RunFolder) -> None:
    newest = run.checkpoints / "round-000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    again, found, damaged = resumed(run)
    assert found.round == 3
    assert len(damaged) == 1
    assert "round-000004" in damaged[0]
    assert_rounds(again, 3)
    commit(again, 4)
    assert_rounds(again, 4)


def test_a_line_of_another_form_is_an_error(run: RunFolder) -> None:
    lines = log(run).read_text().splitlines(keepends=True)
    lines[1] = json.dumps({"round": 2}) + "\n"
    log(run).write_text("".join(lines))
    with pytest.raises(CheckpointError, match=r"rounds\.jsonl: a line that is not a round"):
        resumed(run)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_gap_in_the_log_is_an_error(run: RunFolder, lost: int) -> None:
    lines = log(run).read_text().splitlines(keepends=True)
    del lines[lost - 1]
    log(run).write_text("".join(lines))
    with pytest.raises(CheckpointError, match=rf"rounds\.jsonl: rounds are missing .*\[{lost}\]"):
        resumed(run)


def test_a_spoilt_line_in_the_middle_is_an_error(run: RunFolder) -> None:
    lines = log(run).read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("{", "!")
    log(run).write_text("".join(lines))
    with pytest.raises(CheckpointError, match=r"missing from the log; got \[2, 3\]"):
        resumed(run)


def test_no_log(run: RunFolder) -> None:
    log(run).unlink()
    with pytest.raises(CheckpointError, match="not a run folder"):
        resumed(run)


def test_a_line_written_twice_counts_once(run: RunFolder) -> None:
    text = log(run).read_text()
    log(run).write_text(text + text)
    again, _, _ = resumed(run)
    assert_rounds(again, 4)


def test_of_another_experiment(run: RunFolder) -> None:
    other = EXPERIMENT.model_copy(update={"seed": 1})
    with pytest.raises(CheckpointError, match="made with another experiment"):
        folder_at(run.path, other).resume()
    with pytest.raises(CheckpointError, match=r"seed = 1, not 0\. Resume with its own .*--resume"):
        require_same_experiment(run.path, other)
    require_same_experiment(run.path, EXPERIMENT)


def test_the_closing_line(run: RunFolder) -> None:
    assert read_end(run.path) is None
    end = RunEnd("rounds", 4, 2.5, records.scored(0.5), 4, "ab")
    run.finish(end)
    last = json.loads(log(run).read_text().splitlines()[-1])
    assert last == {"event": "end", **end.to_dict()}
    assert read_end(run.path) == last
    assert [r["round"] for r in read_records(run.path)] == [1, 2, 3, 4]
    again, _, _ = resumed(run)  # goes on: the end is no longer the end
    assert_rounds(again, 4)
    assert read_end(run.path) is None


def test_half_files_of_a_killed_run_are_swept_up(run: RunFolder) -> None:
    left = run.checkpoints / ".round-000005.safetensors.4711.tmp"
    left.write_bytes(b"half")
    (run.path / "clients" / "x").mkdir(parents=True)
    other = run.path / "clients" / "x" / ".round-000005.safetensors.4712.tmp"
    other.write_bytes(b"half")
    release = run.path / "fleet" / "models" / ".0001.0123456789ab.tmp"  # a folder, and the fleet's
    release.mkdir(parents=True)
    resumed(run)
    assert not left.exists()
    assert not other.exists()
    assert release.exists()


def test_disk_full_at_the_log_line(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = os.fsync

    def full_for_the_log(handle: int) -> None:
        if os.fstat(handle).st_ino == log(run).stat().st_ino:
            raise OSError(errno.ENOSPC, "No space left on device")
        synced(handle)

    monkeypatch.setattr(os, "fsync", full_for_the_log)
    with pytest.raises(CheckpointError, match=r"rounds\.jsonl: no space left .* bytes\. Free some"):
        commit(run, 5)
    monkeypatch.undo()
    again, found, _ = resumed(run)
    assert found.round == 5
    assert_rounds(again, 5)


def test_disk_full_at_the_checkpoint_loses_only_that_round(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"round-000005.*no space left"):
        commit(run, 5)
    monkeypatch.undo()
    assert_rounds(run, 4)
    again, found, _ = resumed(run)
    assert found.round == 4
    assert_rounds(again, 4)


def test_a_record_that_is_no_json_never_reaches_the_log(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="JSON"):
        run.finish(RunEnd("rounds", 4, float("nan"), None, 0, "ab"))
    assert_rounds(run, 4)


def test_a_resume_on_another_device_is_told(run: RunFolder) -> None:
    then = environment("cuda:0 (A)", "bf16")
    path = run.path / "environment.json"
    path.write_text(json.dumps(then))
    assert changed_since(run.path, environment("cuda:0 (A)", "bf16")) == []
    device, precision = changed_since(run.path, environment("cpu", "fp32"))
    assert device.startswith("resumed with device cpu, started with cuda:0 (A): the model may not")
    assert precision.startswith("resumed with precision fp32, started with bf16")
    assert changed_since(run.path, {**then, "torch": "9"})[0].startswith("resumed with torch 9")
    assert changed_since(run.path, {**then, "cores": 99, "system": "Plan 9"}) == []
    path.write_text("{")
    assert changed_since(run.path, then) == []
