"""Training by the discrepancy of two heads, and choices that do not go with its three steps."""

from __future__ import annotations

from fleetseg.config import Experiment
from fleetseg.runs.clashes.clash import Clash
from fleetseg.runs.clashes.labels import goes_by_losses

_ONE_LOSS = ("plain", "prox")  # objectives that see each gradient by itself


def _by_discrepancy(experiment: Experiment) -> bool:
    return experiment.training.supervision == "discrepancy"


DISCREPANCY: tuple[Clash, ...] = (
    (
        lambda e: _by_discrepancy(e) and not e.pretrain.sources,
        "training.supervision = 'discrepancy' has vehicles learn from the server's labelled images "
        "beside their own, and pretrain.sources names none; add [[pretrain.sources]]",
    ),
    (
        lambda e: _by_discrepancy(e) and e.engine.kind == "fleet",
        "training.supervision = 'discrepancy' needs the server's labelled images on every vehicle, "
        "and those of engine.kind = 'fleet' have only their own; use 'inprocess' or 'workers'",
    ),
    (
        lambda e: _by_discrepancy(e) and e.training.objective not in _ONE_LOSS,
        "training.supervision = 'discrepancy' takes three kinds of steps, each on the loss of a "
        "part of the network, and objectives other than 'plain' and 'prox' go by one loss of all "
        "of it; use one of these",
    ),
    (
        lambda e: _by_discrepancy(e) and bool(e.training.phases),
        "training.supervision = 'discrepancy' says itself which part of the network a step trains; "
        "leave training.phases out",
    ),
    (
        lambda e: _by_discrepancy(e) and e.federation.aggregator == "normalised",
        "federation.aggregator = 'normalised' goes by how far all steps carry a gradient, and with "
        "training.supervision = 'discrepancy' each part of the network moves in some of them only; "
        "use 'mean'",
    ),
    (
        lambda e: _by_discrepancy(e) and e.personal.model in ("fine-tuned", "ditto"),
        "personal.model = 'fine-tuned' and 'ditto' train a vehicle's own model for its own roads, "
        "and training.supervision = 'discrepancy' would train it for the server's images as well; "
        "use 'none'",
    ),
    (
        lambda e: _by_discrepancy(e) and goes_by_losses(e),
        "training.supervision = 'discrepancy' has losses of the server's images and of how far two "
        "heads differ, which say nothing of a vehicle's own predictions, and federation.weights, "
        "aggregator or sampler goes by losses; use 'images', 'mean' and 'uniform'",
    ),
    (
        lambda e: _by_discrepancy(e) and e.training.feature_distance.weight > 0,
        "training.feature_distance is a term of a loss of the whole network, and "
        "training.supervision = 'discrepancy' takes three kinds of steps on parts of it; use "
        "training.feature_distance.weight = 0",
    ),
    (
        lambda e: _by_discrepancy(e) and e.training.fedfa.probability > 0,
        "training.fedfa goes by the features of a vehicle's own images, and with "
        "training.supervision = 'discrepancy' every batch has the server's images as well; use "
        "training.fedfa.probability = 0",
    ),
)
