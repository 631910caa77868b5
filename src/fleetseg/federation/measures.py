"""Numbers that a method needs from each update, besides the change.

A method that needs none costs nothing: no extra pass is made, and nothing more is sent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fleetseg.config import FederationConfig
from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregators import MEASURES_OF
from fleetseg.federation.cluster_parts import BY_LOSS
from fleetseg.federation.known import CLUSTER, RECEIVED_LOSS, TRAINED_LOSS
from fleetseg.federation.weights import WEIGHTS

MEASURES: Mapping[str, str] = {
    RECEIVED_LOSS: "loss of the received model, mean over all of a client's training samples",
    TRAINED_LOSS: "loss of the trained model, mean over the same",
    CLUSTER: "the cluster whose model has the lowest loss, mean over the same: its number",
}
"""Name -> description; each is one number over all of a client's samples, like `Update.loss`."""
MAX_MEASURE = 1e9


def wanted_measures(settings: FederationConfig) -> tuple[str, ...]:
    """Return the names of the measures that the server uses, sorted."""
    asked = {*WEIGHTS[settings.weights].measures, *MEASURES_OF.get(settings.aggregator, ())}
    asked |= {CLUSTER} if settings.clustered_by == BY_LOSS else set()
    assert asked <= MEASURES.keys()
    return tuple(sorted(asked))


def check_measures(measures: Mapping[str, float], settings: FederationConfig) -> None:
    """Check that an update has the measures that were asked for, and no others.

    Raises:
        UpdateRejected: the names differ, or a measure is not a finite number or too large.
    """
    wanted = wanted_measures(settings)
    if not isinstance(measures, Mapping) or set(measures) != set(wanted):
        got = sorted(map(str, measures))[:10] if isinstance(measures, Mapping) else "no table"
        raise UpdateRejected(
            "measures", "the measures are not those that were asked for", got=got, expected=wanted
        )
    for name, value in measures.items():
        if type(value) is not float or not math.isfinite(value) or abs(value) > MAX_MEASURE:
            raise UpdateRejected("measures", f"'{name}' is not a finite number, or too large")
