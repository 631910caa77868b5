"""Methods that use how far a client's steps move the model, with steps that do not show it."""

from __future__ import annotations

from fleetseg.config import Experiment
from fleetseg.learning.travel import Travel
from fleetseg.runs.clashes.clash import Clash

_SWINGS = 100  # steps: later ones swing less far
_LEAST = 0.1  # of the first step's way


def controls(experiment: Experiment) -> bool:
    """Say whether clients and the server keep control variates, SCAFFOLD's c."""
    return experiment.training.objective in ("scaffold", "drift")


def _by_travel(experiment: Experiment) -> bool:
    return controls(experiment) or experiment.training.objective == "client momentum"


def _normalised(experiment: Experiment) -> bool:
    return experiment.federation.aggregator == "normalised"


def _overshoots(experiment: Experiment) -> bool:
    training = experiment.training
    if training.objective != "prox":
        return False
    travel, lr = Travel(training, training.prox.mu), training.lr
    for _ in range(_SWINGS):
        travel.step(lr)
        if travel.total < _LEAST * lr:
            return True
    return lr * training.prox.mu >= 1


LOCAL_STEPS: tuple[Clash, ...] = (
    (
        lambda e: _by_travel(e) and e.training.optimiser != "sgd",
        "scaffold, drift and client momentum take a client's mean gradient from how far its model "
        "moved, which only training.optimiser = 'sgd' tells",
    ),
    (
        lambda e: (
            e.training.objective == "mimelite"
            and (e.training.optimiser != "sgd" or e.training.momentum > 0)
        ),
        "mimelite's steps have the fleet's momentum in the place of a client's own; use "
        "training.optimiser = 'sgd' and training.momentum = 0",
    ),
    (
        lambda e: _by_travel(e) and e.training.optimiser_state == "kept",
        "scaffold, drift and client momentum take a client's mean gradient from this round's "
        "steps, and training.optimiser_state = 'kept' mixes those of earlier rounds in; use "
        "'reset'",
    ),
    (
        lambda e: _by_travel(e) and e.training.head_lr_factor != 1,
        "scaffold, drift and client momentum divide by one learning rate; use "
        "training.head_lr_factor = 1",
    ),
    (
        lambda e: controls(e) and e.training.clip_grad_norm > 0,
        "scaffold and drift take a client's mean gradient from how far its model moved, and "
        "clipped steps moved less; use training.clip_grad_norm = 0",
    ),
    (
        lambda e: _normalised(e) and e.training.optimiser != "sgd",
        "federation.aggregator = 'normalised' divides by how far a client's steps carry a "
        "gradient, which is known of training.optimiser = 'sgd' only",
    ),
    (
        lambda e: _normalised(e) and e.training.optimiser_state == "kept",
        "federation.aggregator = 'normalised' divides by how far this round's steps carry a "
        "gradient, and training.optimiser_state = 'kept' mixes earlier ones in; use 'reset'",
    ),
    (
        lambda e: _normalised(e) and _overshoots(e),
        "with this training.lr * training.prox.mu (and training.momentum) a step leaps over the "
        "received model, or some lead back to it, and federation.aggregator = 'normalised' has "
        "nothing to divide by; use a smaller training.prox.mu",
    ),
    (
        lambda e: _normalised(e) and e.training.objective == "fedspeed",
        "fedspeed sends a model beyond the one that its steps have led to, and "
        "federation.aggregator = 'normalised' divides by how far they lead; use 'mean'",
    ),
    (
        lambda e: e.training.objective == "mimelite" and len(e.training.phases) > 1,
        "mimelite takes the mean of a round's gradients, and with training.phases each part has "
        "one in some of the steps only; use one phase",
    ),
    (
        lambda e: (_by_travel(e) or _normalised(e)) and len(e.training.phases) > 1,
        "scaffold, drift, client momentum and federation.aggregator = 'normalised' go by how far "
        "all steps carry a gradient, and with training.phases each part moves in some of them "
        "only; use one phase",
    ),
    (
        lambda e: len(e.training.phases) > 1 and e.training.optimiser_state == "kept",
        "each of several training.phases has an optimiser of its own, and "
        "training.optimiser_state = 'kept' keeps one; use 'reset'",
    ),
)
