"""Sweeps of real runs: whole, killed, interrupted, with runs that fail; and their comparison."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fleetseg
from fleetseg.config import Experiment
from fleetseg.errors import CheckpointError, ConfigError, FolderInUse
from fleetseg.runs.folder import read_end, read_records
from fleetseg.runs.lock import owning
from fleetseg.runs.sweep_job import SweepJob, job_main
from fleetseg.runs.sweep_state import RunStatus, Statuses

TWO = """
seeds = [0, 1]
[[run]]
name = "fedavg"
method = "fedavg"
[[run]]
name = "pooled"
baseline = "centralised"
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def written(path: Path, cache: Path, text: str = TWO, rounds: int = 3) -> Path:
    """Write a sweep of two vehicles with three images each."""
    base = f"""
[base.data]
size = [48, 64]
cache = "{cache}"
sources = [{{ conditions = ["day"], cities = ["amber", "birch"], frames_per_drive = 3 }}]
evaluation = [{{ conditions = ["day"], cities = ["amber"], frames_per_drive = 1, split = "val" }}]
[base.training]
batch_size = 2
lr = 0.01
[base.federation]
rounds = {rounds}
[base.engine]
device = "cpu"
precision = "fp32"
"""
    head, run, rest = text.partition("[[run]]")
    path.write_text(head + base + run + rest)
    return path


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> fleetseg.SweepEnd:
    folder = tmp_path_factory.mktemp("whole")
    return fleetseg.sweep(written(folder / "two.toml", cache), out=folder / "out", jobs=2)


def figures(folder: Path) -> list[dict[str, str]]:
    """A comparison without what no two runs have in common: seconds and places."""
    rows = csv.DictReader(io.StringIO((folder / "comparison.csv").read_text()))
    return [{k: v for k, v in row.items() if k not in ("seconds", "seconds_std", "runs")}
            for row in rows]  # fmt: skip


def sha256(folder: Path) -> str:
    end = read_end(folder)
    assert end is not None
    return str(end["model_sha256"])


# Whole


def test_a_sweep_leaves_a_folder_for_each_run_and_their_comparison(
    whole: fleetseg.SweepEnd,
) -> None:
    names = ["fedavg_seed0", "pooled_seed0", "fedavg_seed1", "pooled_seed1"]
    assert [run.planned.name for run in whole.runs] == names
    assert {(run.state, run.rounds_done, run.was_there) for run in whole.runs} == {
        ("finished", 3, False)
    }
    files = {path.name for path in whole.folder.iterdir()}
    assert files == {*names, "sweep.toml", "comparison.csv", "comparison.md"}
    assert whole.comparison is not None
    rows = {row.name: row for row in whole.comparison.rows}
    pooled = rows["pooled, centralised"]
    assert (set(rows), rows["fedavg"].seeds, pooled.seeds) == (
        {"fedavg", "pooled, centralised"},
        (0, 1),
        (0, 1),
    )
    assert rows["fedavg"].images.mean == pooled.images.mean == 18
    assert (whole.is_whole, whole.failed, whole.interrupted) == (True, (), False)


def test_a_run_of_a_sweep_is_the_run_that_it_would_be_alone(
    whole: fleetseg.SweepEnd, cache: Path, tmp_path: Path
) -> None:
    planned = {run.planned.name: run.planned for run in whole.runs}
    alone = fleetseg.run(planned["fedavg_seed1"].experiment, out=tmp_path / "a")
    assert alone.model_sha256 == sha256(whole.folder / "fedavg_seed1")
    pooled = fleetseg.run(
        planned["pooled_seed1"].experiment, out=tmp_path / "b", baseline="centralised"
    )
    assert pooled.model_sha256 == sha256(whole.folder / "pooled_seed1")


def test_finished_runs_are_not_run_again_and_new_ones_join(
    whole: fleetseg.SweepEnd, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    subprocess.run(["cp", "-r", whole.folder, out], check=True)
    begun: list[str] = []

    def watcher(statuses: Statuses, status: RunStatus | None, left_s: float | None) -> None:
        if status is not None and status.state == "running":
            begun.append(status.planned.name)

    again = fleetseg.sweep(None, out=out, resume=True, watcher=watcher)
    assert (begun, {run.was_there for run in again.runs}) == ([], {True})
    assert figures(out) == figures(whole.folder)
    more = f'{TWO}[[run]]\nname = "third"\nmethod = "fedavgm"\n'
    file = written(tmp_path / "three.toml", cache, more)
    third = fleetseg.sweep(file, out=out, resume=True, overrides=["seeds=[1]"], watcher=watcher)
    assert set(begun) == {"third_seed1"}
    assert third.comparison is not None
    assert [row.name for row in third.comparison.rows] == [
        "fedavg",
        "pooled, centralised",
        "third",
    ]


def test_a_folder_that_holds_a_sweep_is_left_alone(
    whole: fleetseg.SweepEnd, cache: Path, tmp_path: Path
) -> None:
    file = written(tmp_path / "two.toml", cache)
    with pytest.raises(CheckpointError, match="already holds a sweep"):
        fleetseg.sweep(file, out=whole.folder)
    with pytest.raises(CheckpointError, match="a run of another experiment"):
        fleetseg.sweep(file, out=whole.folder, resume=True, overrides=["training.lr=0.5"])
    with owning(whole.folder), pytest.raises(FolderInUse):
        fleetseg.sweep(file, out=whole.folder, resume=True)
    with pytest.raises(CheckpointError, match="no sweep to resume"):
        fleetseg.sweep(None, out=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="--resume needs --out"):
        fleetseg.sweep(file, resume=True)


def test_nothing_is_left_of_a_sweep_that_cannot_run(cache: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "two.toml", cache)
    with pytest.raises(ConfigError, match="nothing was started"):
        fleetseg.sweep(file, out=tmp_path / "out", overrides=["training.lr=-1"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="unusable jobs"):
        fleetseg.sweep(file, jobs=0)


# Runs that fail


def test_a_run_that_fails_does_not_stop_the_others(cache: Path, tmp_path: Path) -> None:
    text = '[[run]]\nname = "bad"\nmodel.start = "nowhere"\n[[run]]\nname = "good"\n'
    out = tmp_path / "out"
    end = fleetseg.sweep(written(tmp_path / "s.toml", cache, text, rounds=1), out=out)
    assert {run.planned.name: run.state for run in end.runs} == {
        "bad_seed0": "failed",
        "good_seed0": "finished",
    }
    (failed,) = end.failed
    assert "nowhere" in failed.why
    assert end.comparison is not None
    assert [row.name for row in end.comparison.rows] == ["good"]
    (tmp_path / "nowhere").symlink_to(out / "good_seed0" / "model")
    mended = fleetseg.sweep(None, out=out, resume=True)
    assert mended.is_whole
    assert mended.comparison is not None
    assert [row.name for row in mended.comparison.rows] == ["bad", "good"]


def test_a_process_that_is_killed_is_a_run_that_failed(cache: Path, tmp_path: Path) -> None:
    def watcher(statuses: Statuses, status: RunStatus | None, left_s: float | None) -> None:
        if status is not None and (status.state, status.rounds_done) == ("running", 1):
            if status.planned.baseline:
                return
            (process,) = multiprocessing.active_children()
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)

    file = written(tmp_path / "two.toml", cache, rounds=8)
    out = tmp_path / "out"
    overrides = ["seeds=[0]"]
    end = fleetseg.sweep(file, out=out, overrides=overrides, watcher=watcher)
    assert [run.state for run in end.runs] == ["failed", "finished"]
    assert "was killed (signal 9)" in end.failed[0].why
    before = len(read_records(out / "fedavg_seed0"))
    assert 1 <= before < 8
    assert fleetseg.sweep(None, out=out, resume=True).is_whole


# The example


def test_the_example(tmp_path: Path) -> None:
    """As it stands, but for its number of rounds."""
    example = Path(__file__).resolve().parents[2] / "examples" / "sweep-tiny.toml"
    overrides = ["federation.rounds=1", "training.local_epochs=1", f"data.cache={tmp_path}"]
    end = fleetseg.sweep(example, out=tmp_path / "out", jobs=2, overrides=overrides)
    assert end.is_whole
    assert end.comparison is not None
    assert [(row.name, len(row.seeds)) for row in end.comparison.rows] == [
        ("fedavg", 2),
        ("fedprox_mu-0.01", 2),
        ("fedprox_mu-0.1", 2),
        ("fedavgm", 2),
        ("centralised", 2),
    ]


# Sweeps that are broken off


def command(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fleetseg.cli", "sweep", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def rounds_of(folder: Path) -> int:
    return len(read_records(folder)) if (folder / "rounds.jsonl").is_file() else 0


def test_kill_9_in_a_run_and_resume_give_the_same_comparison(
    whole: fleetseg.SweepEnd, cache: Path, tmp_path: Path
) -> None:
    file, out = written(tmp_path / "two.toml", cache), tmp_path / "out"
    process = command(file, "--out", out)
    wait_for(lambda: rounds_of(out / "fedavg_seed1") >= 1, process)
    process.kill()
    process.communicate()
    assert not (out / "comparison.csv").exists()
    cut_short = rounds_of(out / "fedavg_seed1") < 3
    end = fleetseg.sweep(file, out=out, resume=True)
    assert [run.was_there for run in end.runs][:2] == [True, True]
    assert cut_short or end.runs[2].was_there
    assert figures(out) == figures(whole.folder)
    for run in end.runs:
        name = run.planned.name
        assert sha256(out / name) == sha256(whole.folder / name)


def test_ctrl_c_leaves_everything_usable(cache: Path, tmp_path: Path) -> None:
    file, out = written(tmp_path / "two.toml", cache, rounds=40), tmp_path / "out"
    process = command(file, "--jobs", "2", "--out", out, "--set", "seeds=[0]")
    both = [out / "fedavg_seed0", out / "pooled_seed0"]
    wait_for(lambda: all(rounds_of(folder) >= 1 for folder in both), process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert f"interrupted; resume with: fleetseg sweep --resume --out {out}" in stderr
    assert "Traceback" not in stderr
    states = {line.split()[1].rstrip(":"): line.split()[0] for line in stdout.splitlines()
              if line.startswith("interrupted ")}  # fmt: skip
    for folder in both:
        end = read_end(folder)
        if end is not None and end["reason"] == "interrupted":
            assert states[folder.name] == "interrupted"
        assert (folder / "model" / "model.safetensors").is_file()
    assert not (out / "run.lock").exists()


def test_ctrl_c_before_the_first_round(cache: Path, tmp_path: Path) -> None:
    """While a process is being started, and then while it reads its data."""
    for doing in ("starting", "reading data"):

        def watcher(
            statuses: Statuses, status: RunStatus | None, left_s: float | None, at: str = doing
        ) -> None:
            if status is not None and (status.state, status.doing) == ("running", at):
                raise KeyboardInterrupt

        file, out = written(tmp_path / "two.toml", cache), tmp_path / doing
        end = fleetseg.sweep(file, out=out, overrides=["seeds=[0]"], watcher=watcher)
        assert end.interrupted
        assert [run.state for run in end.runs] == ["interrupted", "waiting"]
        assert multiprocessing.active_children() == []


def test_stop_is_heard_while_the_run_still_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def started(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", started)
    ours, theirs = multiprocessing.Pipe()
    before = signal.getsignal(signal.SIGINT)
    try:
        job_main(SweepJob(Experiment(), "", tmp_path), theirs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert json.loads(ours.recv_bytes()) == {"event": "interrupted"}


def test_a_second_sweep_is_refused_while_one_runs(cache: Path, tmp_path: Path) -> None:
    file, out = written(tmp_path / "two.toml", cache, rounds=40), tmp_path / "out"
    process = command(file, "--out", out)
    try:
        wait_for(lambda: rounds_of(out / "fedavg_seed0") >= 1, process)
        with pytest.raises(FolderInUse, match=f"process {process.pid} "):
            fleetseg.sweep(file, out=out, resume=True)
    finally:
        process.kill()
        process.communicate()
    # The run's own process ends with its sweep.
    until = time.monotonic() + 30
    while True:
        try:
            with owning(out / "fedavg_seed0"):
                break
        except FolderInUse:
            assert time.monotonic() < until
            time.sleep(0.05)
