"""Names of choices, checked against their tables before any data are read."""

from __future__ import annotations

from fleetseg.compression.codec import parse_codec
from fleetseg.compression.uplink import zstandard
from fleetseg.config import Experiment
from fleetseg.errors import unknown_name
from fleetseg.federation.cohort import SAMPLERS
from fleetseg.federation.server_optim import SERVER_OPTIMISERS
from fleetseg.learning.losses import check_loss_name


def check_choices(experiment: Experiment) -> None:
    """Refuse what would be looked up in vain later.

    Raises:
        ConfigError: a name that no table has, with the nearest one that it has.
        MissingExtra: a choice needs a package that is not installed.
    """
    federation = experiment.federation
    for kind, name, table in (
        ("server optimiser", federation.server_optimiser, SERVER_OPTIMISERS),
        ("sampler", federation.sampler, SAMPLERS),
    ):
        if name not in table:
            raise unknown_name(kind, name, table)
    check_loss_name(experiment.training.loss)
    if parse_codec(federation.uplink) is not None:
        zstandard()
