"""fleetseg: federated semantic segmentation for self-driving cars.

import fleetseg

run = fleetseg.run("examples/tiny.toml")
print(run.miou)
model = fleetseg.load_model(run.folder)
"""

from __future__ import annotations

__version__ = "0.1.0"

from fleetseg.api import run
from fleetseg.config import Experiment, load_experiment
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import FleetSegError
from fleetseg.models.folder import load_model
from fleetseg.runner import Run

__all__ = [
    "Experiment",
    "FleetSegError",
    "LabelSpace",
    "Run",
    "__version__",
    "load_experiment",
    "load_model",
    "run",
]
