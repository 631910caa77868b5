"""The table of aggregators: how the changes of a cohort are combined into one.

An entry is a factory of an `Aggregator`, whose result must not depend on the order of arrival. For
rules that need all changes at once, `robust.spooled` makes the factory.
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
"""What an aggregator needs from each update besides its change: see `measures`."""
