"""Choices that cannot work together, and why."""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.config import Experiment
from fleetseg.evaluation.norms import NORM_STATISTICS
from fleetseg.learning.supervision import SUPERVISION


def _needs_no_labels(experiment: Experiment) -> bool:
    return not SUPERVISION[experiment.training.supervision].needs_labels


def _scaffold(experiment: Experiment) -> bool:
    return experiment.training.objective == "scaffold"


def _lacks_statistics(experiment: Experiment) -> bool:
    """Say whether the server has sets to score on, and batch norms without statistics."""
    takes_own = NORM_STATISTICS[experiment.evaluation.norms].takes_own
    return bool(experiment.data.evaluation) and takes_own


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
        lambda e: e.federation.statistics == "pooled" and e.federation.aggregator != "mean",
        "federation.statistics = 'pooled' is a mean of second moments; use federation.aggregator = "
        "'mean'",
    ),
    (
        lambda e: e.federation.statistics == "estimated" and e.federation.sharing != "all",
        "federation.statistics = 'estimated' asks vehicles to look through the server's model, and "
        "federation.sharing leaves a part of that with them; use 'all'",
    ),
    (
        lambda e: e.federation.statistics == "estimated" and e.training.freeze_bn_after < 1,
        "training.freeze_bn_after trains with the statistics that are sent, and "
        "federation.statistics = 'estimated' would put others in their place; use 'mean'",
    ),
    (
        lambda e: e.federation.sharing in ("silobn", "fedbn") and e.training.freeze_bn_after < 1,
        "federation.sharing leaves running statistics with each vehicle, and one that is first "
        "asked past training.freeze_bn_after would train with start values for ever; use 1.0",
    ),
    (
        lambda e: e.federation.sharing == "silobn" and _lacks_statistics(e),
        "silobn leaves running statistics with the vehicles, so that the server has none to score "
        "[[data.evaluation]] with; use evaluation.norms = 'domain' or 'batch'",
    ),
    (
        lambda e: e.federation.sharing == "fedbn" and bool(e.data.evaluation),
        "fedbn leaves norm layers with the vehicles, so that the server has no model to score "
        "[[data.evaluation]] with; score on the vehicles: partition.holdout in its place",
    ),
)
"""Choices that cannot work together, and why."""
