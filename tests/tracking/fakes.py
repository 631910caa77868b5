"""Stand-ins for tracking libraries that are not installed: the calls we make, as they take them.

Signatures are those of wandb 0.31, mlflow 3.17 and trackio 0.43, so that a call which the library
would not take is a TypeError here, too. What is logged is kept in order.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fleetseg.tracking.tracker import Tracked


def tracked(folder: Path, step: int = 0, **changes: Any) -> Tracked:
    """Describe a run that a tracker is opened for."""
    fields: dict[str, Any] = {
        "run": "ab12cd34ef56ab78",
        "name": "camvid-7",
        "group": "camvid",
        "project": "cars",
        "settings": {"seed": 7, "training": {"lr": 0.1}},
    }
    return Tracked(folder, step=step, **{**fields, **changes})


class Picture:
    """An image as a library wraps it."""

    def __init__(self, image: np.ndarray, mode: str | None = None) -> None:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        self.shape = image.shape


class LoggingRun:
    """A run of wandb, or of trackio where data are called metrics."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given, self.logged, self.finished = given, [], 0
        self.url, self.dir, self.offline = "https://wandb.example/run", "files", False

    def finish(self, exit_code: int | None = None) -> None:
        self.finished += 1


class WandbRun(LoggingRun):
    """Steps that are past are ignored, as by wandb."""

    def log(
        self, data: dict[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        self.logged.append((step, data))


class TrackioRun(LoggingRun):
    """Keeps what it is given."""

    def log(self, metrics: dict, step: int | None = None) -> None:
        self.logged.append((step, metrics))


def wandb(monkeypatch: pytest.MonkeyPatch) -> list[WandbRun]:
    """Put a wandb in place; returns the runs that are begun with it."""
    runs: list[WandbRun] = []

    class Settings:
        def __init__(self, console: str = "auto", silent: bool = False) -> None:
            self.console, self.silent = console, silent

    def init(
        entity: str | None = None,
        project: str | None = None,
        dir: str | None = None,
        id: str | None = None,
        name: str | None = None,
        notes: str | None = None,
        tags: Any = None,
        config: dict[str, Any] | None = None,
        group: str | None = None,
        mode: str | None = None,
        resume: Any = None,
        settings: Settings | None = None,
    ) -> WandbRun:
        runs.append(WandbRun(dict(locals())))
        return runs[-1]

    _put(monkeypatch, "wandb", init=init, Image=Picture, Settings=Settings)
    return runs


def trackio(monkeypatch: pytest.MonkeyPatch) -> list[TrackioRun]:
    """Put a trackio in place that prints, as it does; returns the runs that are begun with it."""
    runs: list[TrackioRun] = []

    def init(
        project: str,
        name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
        config: dict | None = None,
        resume: str = "never",
        settings: Any = None,
    ) -> TrackioRun:
        print("* Trackio project initialized")
        runs.append(TrackioRun(dict(locals())))
        return runs[-1]

    _put(monkeypatch, "trackio", init=init, Image=Picture)
    return runs


class Metric:
    """One figure of mlflow."""

    def __init__(self, key: str, value: float, timestamp: int, step: int) -> None:
        self.key, self.value, self.timestamp, self.step = key, value, timestamp, step


class Param:
    """One parameter of mlflow."""

    def __init__(self, key: str, value: str) -> None:
        assert isinstance(value, str)
        self.key, self.value = key, value


class MlflowServer:
    """What an MLflow server has: experiments, and runs with what was logged."""

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self.runs: list[SimpleNamespace] = []

    def get_experiment_by_name(self, name: str) -> Any:
        known = name in self.experiments
        return SimpleNamespace(experiment_id=self._id(name)) if known else None

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Any = None
    ) -> str:
        self.experiments.append(name)
        return self._id(name)

    def search_runs(self, experiment_ids: list[str], filter_string: str = "") -> list[Any]:
        return [
            run
            for run in self.runs
            if run.experiment in experiment_ids
            and filter_string == f"tags.`fleetseg.run` = '{run.tags['fleetseg.run']}'"
        ]

    def create_run(
        self,
        experiment_id: str,
        start_time: int | None = None,
        tags: dict[str, Any] | None = None,
        run_name: str | None = None,
    ) -> Any:
        info = SimpleNamespace(run_id=f"run-{len(self.runs)}", run_name=run_name)
        fields = {"info": info, "experiment": experiment_id, "tags": tags or {}}
        self.runs.append(
            SimpleNamespace(**fields, status="RUNNING", metrics=[], params={}, images=[])
        )
        return self.runs[-1]

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        self._run(run_id).status = status

    def set_terminated(
        self, run_id: str, status: str | None = None, end_time: int | None = None
    ) -> None:
        self._run(run_id).status = status or "FINISHED"

    def get_metric_history(self, run_id: str, key: str) -> list[Metric]:
        return [metric for metric in self._run(run_id).metrics if metric.key == key]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = ()) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100, "as the real one limits it"
        self._run(run_id).metrics += metrics
        self._run(run_id).params |= {param.key: param.value for param in params}

    def log_image(
        self,
        run_id: str,
        image: np.ndarray,
        artifact_file: str | None = None,
        key: str | None = None,
        step: int | None = None,
    ) -> None:
        self._run(run_id).images.append((step, key, Picture(image).shape))

    def _id(self, name: str) -> str:
        return f"experiment-{self.experiments.index(name)}"

    def _run(self, run_id: str) -> Any:
        return next(run for run in self.runs if run.info.run_id == run_id)


def mlflow(monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    """Put an mlflow in place; returns its server."""
    server = MlflowServer()
    _put(monkeypatch, "mlflow")
    _put(monkeypatch, "mlflow.entities", Metric=Metric, Param=Param)
    _put(monkeypatch, "mlflow.tracking", MlflowClient=lambda: server)
    return server


def _put(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)
