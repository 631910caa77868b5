"""How the changes of a cohort become one: the table of aggregators.

An aggregator is a factory here; its result must not depend on the order of arrival. Rules that need
all changes at once are made by `robust.spooled`.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.federation.aggregate import Aggregator, FixedPointMean, Opening
from fleetseg.federation.extrapolated import ExtrapolatedMean
from fleetseg.federation.known import RECEIVED_LOSS
from fleetseg.federation.normalised import NormalisedMean
from fleetseg.federation.qffl import q_fedavg

AGGREGATORS: dict[str, Callable[[Opening], Aggregator]] = {
    "mean": lambda opening: FixedPointMean(opening.size, opening.weights),
    "normalised": NormalisedMean,
    "extrapolated": ExtrapolatedMean,
    "q-fedavg": q_fedavg,
}
MEASURES_OF: dict[str, tuple[str, ...]] = {"q-fedavg": (RECEIVED_LOSS,)}
"""What an aggregator asks of each update beside its change: see `measures`."""
