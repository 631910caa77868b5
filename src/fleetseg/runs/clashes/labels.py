"""Methods that depend on labels, with vehicles that have none or label only some classes."""

from __future__ import annotations

from fleetseg.config import Experiment, UnlabelledConfig
from fleetseg.federation.measures import wanted_measures
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.runs.clashes.clash import Clash


def _needs_no_labels(experiment: Experiment) -> bool:
    return not SUPERVISION[experiment.training.supervision].needs_labels


def goes_by_losses(experiment: Experiment) -> bool:
    """Say whether weights, aggregator or sampler go by losses that clients report."""
    federation = experiment.federation
    samplers = ("power of choice", "oort")
    return bool(wanted_measures(federation)) or federation.sampler in samplers


def _sends_teachers(experiment: Experiment) -> bool:
    training = experiment.training
    return bool(SUPERVISION[training.supervision].references(training))


LABELS: tuple[Clash, ...] = (
    (
        lambda e: SUPERVISION[e.training.supervision].self_taught and goes_by_losses(e),
        "training.supervision = 'self_training' has losses of pseudo-labels, which do not compare "
        "with those of labels or of surer vehicles, and federation.weights, aggregator or sampler "
        "goes by losses; use 'images', 'mean' and 'uniform'",
    ),
    (
        lambda e: _sends_teachers(e) and e.federation.downlink.strip() != "none",
        "federation.downlink sends what is new in one model, and training.self_training sends "
        "teachers beside it; use federation.downlink = 'none', or teacher = 'round' with every = 1 "
        "and distil = 0, which is the broadcast itself",
    ),
    (
        lambda e: (
            _needs_no_labels(e)
            and e.partition.kind == "dirichlet"
            and e.partition.unlabelled != UnlabelledConfig()
        ),
        "partition.kind = 'dirichlet' shares images out by their labels, and partition.unlabelled "
        "says that some are not to be read; use 'natural', 'iid' or 'file'",
    ),
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
