"""fleetseg: federated semantic segmentation for self-driving cars.

import fleetseg

run = fleetseg.run("examples/tiny.toml")
print(run.miou)
print(fleetseg.evaluate(run.folder, "examples/tiny.toml").iou)
print(fleetseg.load_model(run.folder).predict("street.png").shape)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fleetseg._version import __version__

if TYPE_CHECKING:
    from fleetseg.api import run, run_local, serve
    from fleetseg.config import Experiment, SourceConfig
    from fleetseg.data.labels import LabelSpace
    from fleetseg.errors import FleetSegError
    from fleetseg.experiment_file import load_experiment
    from fleetseg.export.export import export_model
    from fleetseg.runs.comparison import Comparison, compare
    from fleetseg.runs.evaluate import Evaluated, evaluate
    from fleetseg.runs.loaded import load_model
    from fleetseg.runs.predict import predict
    from fleetseg.runs.report import RunReport, read_run
    from fleetseg.runs.run import Run
    from fleetseg.runs.sweep import SweepEnd, sweep

__all__ = [
    "Comparison",
    "Evaluated",
    "Experiment",
    "FleetSegError",
    "LabelSpace",
    "Run",
    "RunReport",
    "SourceConfig",
    "SweepEnd",
    "__version__",
    "compare",
    "evaluate",
    "export_model",
    "load_experiment",
    "load_model",
    "predict",
    "read_run",
    "run",
    "run_local",
    "serve",
    "sweep",
]

# Imported on first access: importing torch takes seconds, and `fleetseg --help` does not need it.
_HOMES = {
    "Comparison": "runs.comparison",
    "Evaluated": "runs.evaluate",
    "Experiment": "config",
    "FleetSegError": "errors",
    "LabelSpace": "data.labels",
    "Run": "runs.run",
    "RunReport": "runs.report",
    "SourceConfig": "config",
    "SweepEnd": "runs.sweep",
    "compare": "runs.comparison",
    "evaluate": "runs.evaluate",
    "export_model": "export.export",
    "load_experiment": "experiment_file",
    "load_model": "runs.loaded",
    "predict": "runs.predict",
    "read_run": "runs.report",
    "run": "api",
    "run_local": "api",
    "serve": "api",
    "sweep": "runs.sweep",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fleetseg' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fleetseg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
