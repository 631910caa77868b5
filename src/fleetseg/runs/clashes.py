"""Choices that cannot work together, and why."""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.compression.codec import Codec, parse_codec
from fleetseg.config import Experiment
from fleetseg.evaluation.norms import NORM_STATISTICS
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.parts import learns
from fleetseg.learning.supervision import SUPERVISION


def _needs_no_labels(experiment: Experiment) -> bool:
    return not SUPERVISION[experiment.training.supervision].needs_labels


def _sends_beside(experiment: Experiment) -> bool:
    objective = OBJECTIVES[experiment.training.objective]
    return bool(objective.extras or objective.told)


def _controls(experiment: Experiment) -> bool:
    return experiment.training.objective in ("scaffold", "drift")


def _by_travel(experiment: Experiment) -> bool:
    return _controls(experiment) or experiment.training.objective == "client momentum"


def _drifts(experiment: Experiment) -> bool:
    return experiment.training.objective in ("dyn", "drift")


def _adds_up(experiment: Experiment) -> bool:
    """Whether the server holds the plain mean of what clients keep."""
    return _controls(experiment) or _drifts(experiment)


def _normalised(experiment: Experiment) -> bool:
    return experiment.federation.aggregator == "normalised"


def _overshoots(experiment: Experiment) -> bool:
    training = experiment.training
    return training.objective == "prox" and training.lr * training.prox.mu >= 1


def _codecs(experiment: Experiment) -> list[Codec]:
    """List the codecs of updates, of all rounds."""
    federation = experiment.federation
    texts = [federation.uplink, *(text for _, text in federation.uplink_schedule)]
    return [codec for text in texts if (codec := parse_codec(text)) is not None]


def _sends_parts(experiment: Experiment) -> bool:
    return any(codec.leaves_out for codec in _codecs(experiment))


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
        lambda e: e.federation.sampler == "poisson" and e.federation.over_selection > 1,
        "federation.sampler = 'poisson' asks each vehicle by itself, and has no number to ask more "
        "than; use federation.over_selection = 1",
    ),
    (
        lambda e: _needs_no_labels(e) and e.training.class_weights != "none",
        "training.class_weights come from labels, and training.supervision takes vehicles that "
        "have none; use 'none'",
    ),
    (
        lambda e: _by_travel(e) and e.training.optimiser != "sgd",
        "scaffold, drift and client momentum take a client's mean gradient from how far its model "
        "moved, which only training.optimiser = 'sgd' tells",
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
        lambda e: _controls(e) and e.training.clip_grad_norm > 0,
        "scaffold and drift take a client's mean gradient from how far its model moved, and "
        "clipped steps moved less; use training.clip_grad_norm = 0",
    ),
    (
        lambda e: _adds_up(e) and e.federation.weights != "uniform",
        "what the server keeps for scaffold, dyn and drift is the plain mean of what all clients "
        "keep, and so must be that of their models; use federation.weights = 'uniform'",
    ),
    (
        lambda e: _adds_up(e) and e.federation.aggregator != "mean",
        "what the server keeps for scaffold, dyn and drift is the mean of what all clients keep; "
        "use federation.aggregator = 'mean'",
    ),
    (
        lambda e: _adds_up(e) and bool(_codecs(e)),
        "what the server keeps for scaffold, dyn and drift is the mean of what clients keep, and a "
        "codec would change only what they send; use federation.uplink = 'none'",
    ),
    (
        lambda e: _drifts(e) and e.federation.server_optimiser != "drift",
        "dyn and drift are half of a method whose other half is the server's; use "
        "federation.server_optimiser = 'drift'",
    ),
    (
        lambda e: not _drifts(e) and e.federation.server_optimiser == "drift",
        "federation.server_optimiser = 'drift' undoes the drift that clients learn with "
        "training.objective = 'dyn' or 'drift', and would only add one without",
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
        "with training.lr * training.prox.mu of 1 or more each step leaps over the received model, "
        "and federation.aggregator = 'normalised' has nothing to divide by",
    ),
    (
        lambda e: _normalised(e) and e.training.objective == "fedspeed",
        "fedspeed sends a model beyond the one that its steps have led to, and "
        "federation.aggregator = 'normalised' divides by how far they lead; use 'mean'",
    ),
    (
        lambda e: e.federation.weights == "feddg-ga" and e.training.objective == "fedspeed",
        "federation.weights = 'feddg-ga' goes by the loss of the model that a client has learnt, "
        "and fedspeed puts the one that it sends in its place; use 'images'",
    ),
    (
        lambda e: e.federation.aggregator == "q-fedavg" and _sends_parts(e),
        "federation.aggregator = 'q-fedavg' goes by the lengths of whole changes, and topk and "
        "powersgd leave parts of them out; use a codec that does not, or 'none'",
    ),
    (
        lambda e: e.federation.aggregator == "extrapolated" and _sends_parts(e),
        "federation.aggregator = 'extrapolated' goes by the lengths of whole changes, and topk "
        "and powersgd leave parts of them out; use a codec that does not, or 'none'",
    ),
    (
        lambda e: _sends_beside(e) and e.federation.downlink.strip() != "none",
        "what the objective sends beside the model would arrive a little at a time; use "
        "federation.downlink = 'none'",
    ),
    (
        lambda e: (_by_travel(e) or _normalised(e)) and len(e.training.phases) > 1,
        "scaffold, drift, client momentum and federation.aggregator = 'normalised' go by how far "
        "all steps carry a gradient, and with training.phases each part moves in some of them "
        "only; use one phase",
    ),
    (
        lambda e: e.training.objective == "mimelite" and len(e.training.phases) > 1,
        "mimelite takes the mean of a round's gradients, and with training.phases each part has "
        "one in some of the steps only; use one phase",
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
