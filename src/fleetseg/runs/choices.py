"""Names of choices, checked against their tables before any data are read."""

from __future__ import annotations

from collections.abc import Callable, Collection

from fleetseg.compression.codec import parse_codec
from fleetseg.compression.uplink import zstandard
from fleetseg.config import Experiment
from fleetseg.errors import ConfigError, unknown_name
from fleetseg.federation.aggregate import AGGREGATORS
from fleetseg.federation.cohort import SAMPLERS
from fleetseg.federation.publishing import PUBLISHING
from fleetseg.federation.server_optim import SERVER_OPTIMISERS
from fleetseg.federation.sharing import SHARING
from fleetseg.federation.weights import WEIGHTS
from fleetseg.learning.losses import check_loss_name
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.supervision import SUPERVISION

TABLES: dict[str, tuple[str, Collection[str]]] = {
    "training.supervision": ("supervision", SUPERVISION),
    "training.objective": ("objective", OBJECTIVES),
    "federation.sampler": ("sampler", SAMPLERS),
    "federation.weights": ("weights", WEIGHTS),
    "federation.sharing": ("sharing policy", SHARING),
    "federation.aggregator": ("aggregator", AGGREGATORS),
    "federation.server_optimiser": ("server optimiser", SERVER_OPTIMISERS),
    "federation.publishing": ("way to publish", PUBLISHING),
}
"""Options whose values are names in a table: what such a name is called, and the table."""


def _needs_no_labels(experiment: Experiment) -> bool:
    return not SUPERVISION[experiment.training.supervision].needs_labels


def _scaffold(experiment: Experiment) -> bool:
    return experiment.training.objective == "scaffold"


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
)
"""Choices that cannot work together, and why."""


def check_choices(experiment: Experiment) -> None:
    """Refuse what would be looked up in vain later.

    Raises:
        ConfigError: a name that no table has, with the nearest one that it has; choices that do not
            go together.
        MissingExtra: a choice needs a package that is not installed.
    """
    for option, (kind, table) in TABLES.items():
        section, _, field = option.partition(".")
        name = getattr(getattr(experiment, section), field)
        if name not in table:
            raise unknown_name(kind, name, table)
    for clash, because in CLASHES:
        if clash(experiment):
            raise ConfigError(because)
    federation = experiment.federation
    check_loss_name(experiment.training.loss)
    if parse_codec(federation.uplink) is not None:
        zstandard()
