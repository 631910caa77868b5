"""Methods that go by labels, with vehicles that have none or label some classes only."""

from __future__ import annotations

from fleetseg.config import Experiment
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.runs.clashes.clash import Clash


def _needs_no_labels(experiment: Experiment) -> bool:
    return not SUPERVISION[experiment.training.supervision].needs_labels


LABELS: tuple[Clash, ...] = (
    (
        lambda e: _needs_no_labels(e) and e.federation.weights == "pixels",
        "federation.weights = 'pixels' counts labelled pixels, and training.supervision takes "
        "vehicles that have none; use 'images'",
    ),
    (
        lambda e: _needs_no_labels(e) and e.federation.weights == "inverse class frequency",
        "federation.weights = 'inverse class frequency' counts labelled pixels, and "
        "training.supervision takes vehicles that have none; use 'images'",
    ),
    (
        lambda e: _needs_no_labels(e) and e.federation.sampler == "clusters",
        "federation.sampler = 'clusters' goes by the classes that vehicles hold, and "
        "training.supervision takes vehicles that have no labels; use 'uniform'",
    ),
    (
        lambda e: _needs_no_labels(e) and e.training.class_weights != "none",
        "training.class_weights come from labels, and training.supervision takes vehicles that "
        "have none; use 'none'",
    ),
    (
        lambda e: e.training.calibration != "none" and e.training.supervision != "labels",
        "training.calibration goes by how many pixels of each class a vehicle has labelled, which "
        "says nothing of classes that it does not label; use training.supervision = 'labels'",
    ),
    (
        lambda e: _needs_no_labels(e) and e.training.objective == "moon",
        "moon compares features of the pixels of a class, and training.supervision takes vehicles "
        "that have no labels",
    ),
)
