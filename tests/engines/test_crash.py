"""kill -9 anywhere: after --resume the final model is that of an uninterrupted run, bit by bit."""

from __future__ import annotations

import importlib
import json
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.engines.starting import start
from fleetseg.runs.folder import read_records

POINTS = {
    "before the first round": ("fleetseg.federation.rounds", "run", 1, "before"),
    "before a broadcast": ("fleetseg.engines.inprocess", "InProcessEngine.ask", 2, "before"),
    "after two of four updates": (
        "fleetseg.federation.collect",
        "RoundCollector._fold",
        6,
        "after",
    ),
    "while an update is folded": (
        "fleetseg.federation.aggregate",
        "FixedPointMean.add",
        7,
        "before",
    ),
    "before the server's step": ("fleetseg.federation.plan", "server_step", 2, "before"),
    "during evaluation": ("fleetseg.runs.scoring", "Scorer.score", 2, "before"),
    "while a checkpoint is written": ("fleetseg.files", "os.replace", 7, "before"),
    "between checkpoint and log line": (
        "fleetseg.runs.folder",
        "RunFolder._append",
        2,
        "before",
    ),
    "after the log line": ("fleetseg.runs.folder", "RunFolder._append", 2, "after"),
    "before the model is saved": ("fleetseg.runs.ending", "save_model", 1, "before"),
}


def victim(job: tuple[str, str, int, str, str, str], pipe: Connection) -> None:
    """Run an experiment and die before or after the n-th call of a function.

    In a process of its own; the product has no hooks for this.
    """
    module, name, call, when, toml, out = job
    holder = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        holder = getattr(holder, part)
    original, calls = getattr(holder, last), 0

    def killer(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if calls == call and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(holder, last, killer)
    fleetseg.run(fleetseg.load_experiment(Path(toml)), out=out)


def kill_at(point: str, toml: Path, out: Path) -> None:
    """Run an experiment in a process of its own until it kills itself."""
    job = (*POINTS[point], str(toml), str(out))
    process, _ = start("victim", victim, job, on_cpu=True)
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, fleetseg.Run]:
    """An uninterrupted run, and the cache that all runs share."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, fleetseg.run(tiny_experiment(cache), out=cache / "whole")


@pytest.mark.parametrize("point", POINTS, ids=str)
def test_killed_and_resumed(point: str, whole: tuple[Path, fleetseg.Run], tmp_path: Path) -> None:
    cache, uninterrupted = whole
    out, toml = tmp_path / "run", uninterrupted.folder / "experiment.toml"
    kill_at(point, toml, out)
    resumed = fleetseg.run(tiny_experiment(cache), out=out, resume=True)
    assert resumed.model_sha256 == uninterrupted.model_sha256
    assert [r["round"] for r in read_records(out)] == [1, 2, 3]
    assert not list(out.rglob("*.tmp")) or "written" in point


def test_killed_and_resumed_with_a_codec(tmp_path: Path) -> None:
    """What top-k left out is state on disk too."""
    experiment = tiny_experiment(tmp_path / "cache", federation={"uplink": "topk(10%)+int8"})
    uninterrupted = fleetseg.run(experiment, out=tmp_path / "whole")
    toml, out = uninterrupted.folder / "experiment.toml", tmp_path / "run"
    kill_at("after two of four updates", toml, out)
    resumed = fleetseg.run(experiment, out=out, resume=True)
    assert resumed.model_sha256 == uninterrupted.model_sha256


def test_a_killed_worker_is_replaced(whole: tuple[Path, fleetseg.Run], tmp_path: Path) -> None:
    """A worker that dies costs its client one more try, not the run and not the result."""
    from fleetseg.engines.workers import WorkersEngine

    cache, uninterrupted = whole
    experiment = tiny_experiment(cache, engine={"kind": "workers", "workers": 2})
    original = WorkersEngine._send
    killed: list[str] = []

    def kill_once(self, worker, task, broadcast, common):  # type: ignore[no-untyped-def]
        if broadcast.round == 2 and not killed:
            killed.append(worker.client)
            os.kill(worker.process.pid, signal.SIGKILL)
        original(self, worker, task, broadcast, common)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkersEngine, "_send", kill_once)
        run = fleetseg.run(experiment, out=tmp_path / "run")
    assert killed
    assert run.model_sha256 == uninterrupted.model_sha256


def test_resume_of_a_finished_run_changes_nothing(
    whole: tuple[Path, fleetseg.Run], tmp_path: Path
) -> None:
    cache, uninterrupted = whole
    out = tmp_path / "run"
    fleetseg.run(tiny_experiment(cache), out=out)
    again = fleetseg.run(tiny_experiment(cache), out=out, resume=True)
    assert again.model_sha256 == uninterrupted.model_sha256
    lines = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [line.get("event") for line in lines] == [None, None, None, "end"]
