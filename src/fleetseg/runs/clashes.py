"""Choices that cannot work together, and why."""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.config import Experiment
from fleetseg.learning.parts import learns
from fleetseg.learning.supervision import SUPERVISION


def _needs_no_labels(experiment: Experiment) -> bool:
    return not SUPERVISION[experiment.training.supervision].needs_labels


def _scaffold(experiment: Experiment) -> bool:
    return experiment.training.objective == "scaffold"


_STAYS = {"body": "head", "head": "body"}  # of a sharing policy, what it leaves with clients
LEARNS_APART = (
    "a part of the network learns and stays with the vehicles (federation.sharing), so that the "
    "server's sets would be scored with a part that nobody has trained; hold frames of the "
    "vehicles out instead (partition.holdout, and no [[data.evaluation]]), on which each vehicle's "
    "own part is scored"
)


def _learns_apart(experiment: Experiment) -> bool:
    part = _STAYS.get(experiment.federation.sharing)
    return part is not None and learns(part, experiment.training)


CLASHES: tuple[tuple[Callable[[Experiment], bool], str], ...] = (
    (
        lambda e: _needs_no_labels(e) and e.federation.weights == "pixels",
        "federation.weights = 'pixels' counts labelled pixels, and training.supervision takes "
        "vehicles that have none; use 'images'",
    ),
    (
        lambda e: _needs_no_labels(e) and e.training.class_weights != "none",
        "training.class_weights come from labels, and training.supervision takes vehicles that "
        "have none; use 'none'",
    ),
    (
        lambda e: _scaffold(e) and e.training.optimiser != "sgd",
        "scaffold takes a client's mean gradient from how far its model moved, which only "
        "training.optimiser = 'sgd' tells",
    ),
    (
        lambda e: _scaffold(e) and e.training.optimiser_state == "kept",
        "scaffold takes a client's mean gradient from this round's steps, and "
        "training.optimiser_state = 'kept' mixes those of earlier rounds in; use 'reset'",
    ),
    (
        lambda e: _scaffold(e) and e.training.head_lr_factor != 1,
        "scaffold divides by one learning rate; use training.head_lr_factor = 1",
    ),
    (
        lambda e: _scaffold(e) and e.training.clip_grad_norm > 0,
        "scaffold takes a client's mean gradient from how far its model moved, and clipped steps "
        "moved less; use training.clip_grad_norm = 0",
    ),
    (
        lambda e: _scaffold(e) and e.federation.weights != "uniform",
        "scaffold's c is the plain mean of all clients' c_i, and so must be that of their models; "
        "use federation.weights = 'uniform'",
    ),
    (
        lambda e: _scaffold(e) and e.federation.aggregator != "mean",
        "scaffold's c is the mean of all clients' c_i; use federation.aggregator = 'mean'",
    ),
    (
        lambda e: _scaffold(e) and e.federation.uplink not in ("", "none"),
        "scaffold's c is the mean of what clients keep, and a codec would change only what they "
        "send; use federation.uplink = 'none'",
    ),
    (
        lambda e: _scaffold(e) and len(e.training.phases) > 1,
        "scaffold takes a client's mean gradient from how far its model moved in all steps, and "
        "with training.phases each part moves in some of them only; use one phase",
    ),
    (
        lambda e: len(e.training.phases) > 1 and e.training.optimiser_state == "kept",
        "each of several training.phases has an optimiser of its own, and "
        "training.optimiser_state = 'kept' keeps one; use 'reset'",
    ),
    (
        lambda e: e.federation.sharing == "stages" and not e.federation.stages,
        "federation.sharing = 'stages' exchanges the modules that federation.stages names, and "
        "it names none",
    ),
    (lambda e: bool(e.data.evaluation) and _learns_apart(e), LEARNS_APART),
    (
        lambda e: e.personal.model == "ditto" and e.personal.learns != "all",
        "ditto keeps a whole model of each client's own, whose other part would stay as it was in "
        "the client's first round; use personal.learns = 'all'",
    ),
)
"""Choices that cannot work together, and why."""
