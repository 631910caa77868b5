"""Check names of choices against their tables before any data are read."""

from __future__ import annotations

from collections.abc import Collection

from fleetseg.compression.codec import parse_codec
from fleetseg.compression.frames import zstandard
from fleetseg.config import Experiment, FederationConfig
from fleetseg.errors import ConfigError, unknown_name
from fleetseg.evaluation.norms import NORM_STATISTICS
from fleetseg.federation.aggregators import AGGREGATORS
from fleetseg.federation.cluster_points import require_way
from fleetseg.federation.cohort import SAMPLERS
from fleetseg.federation.personal import PERSONAL
from fleetseg.federation.publishing import PUBLISHING
from fleetseg.federation.server_optim import SERVER_OPTIMISERS
from fleetseg.federation.sharing import SHARING
from fleetseg.federation.statistics import STATISTICS
from fleetseg.federation.weights import WEIGHTS
from fleetseg.learning.calibration import CALIBRATIONS
from fleetseg.learning.losses import check_loss_name
from fleetseg.learning.objectives import OBJECTIVES
from fleetseg.learning.supervision import SUPERVISION
from fleetseg.runs.clashes import CLASHES
from fleetseg.tracking.trackers import require_trackers

TABLES: dict[str, tuple[str, Collection[str]]] = {
    "training.supervision": ("supervision", SUPERVISION),
    "training.objective": ("objective", OBJECTIVES),
    "training.calibration": ("calibration", CALIBRATIONS),
    "federation.sampler": ("sampler", SAMPLERS),
    "federation.weights": ("weights", WEIGHTS),
    "federation.sharing": ("sharing policy", SHARING),
    "federation.aggregator": ("aggregator", AGGREGATORS),
    "federation.statistics": ("rule for statistics", STATISTICS),
    "federation.server_optimiser": ("server optimiser", SERVER_OPTIMISERS),
    "federation.publishing": ("way to publish", PUBLISHING),
    "personal.model": ("kind of personal model", PERSONAL),
    "evaluation.norms": ("norm statistics", NORM_STATISTICS),
    "evaluation.norms_on_clients": ("norm statistics", NORM_STATISTICS),
}
"""Options whose values are names in a table: what such a name is called, and the table."""


def check_choices(experiment: Experiment) -> None:
    """Refuse names and combinations of choices that would fail later.

    Raises:
        ConfigError: a name that is in no table, with the nearest valid one; choices that cannot be
            combined.
        MissingExtra: a choice needs a package that is not installed.
    """
    for option, (kind, table) in TABLES.items():
        section, _, field = option.partition(".")
        name = getattr(getattr(experiment, section), field)
        if name not in table:
            raise unknown_name(kind, name, table)
    require_way(experiment.federation.clustered_by)
    for clash, because in CLASHES:
        if clash(experiment):
            raise ConfigError(because)
    check_loss_name(experiment.training.loss)
    require_trackers(experiment.tracking.to)
    _check_codecs(experiment.federation)


def _check_codecs(federation: FederationConfig) -> None:
    shares = [share for share, _ in federation.uplink_schedule]
    if shares != sorted(set(shares)):
        raise ConfigError(
            "federation.uplink_schedule goes back in time",
            got=", ".join(map(str, shares)),
            expected="pairs [share of the rounds, codec], the shares ascending",
        )
    texts = [federation.uplink, federation.downlink, federation.downlink_start]
    texts += [text for _, text in federation.uplink_schedule]
    if any([parse_codec(text) is not None for text in texts]):  # a list: every text is parsed
        zstandard()
