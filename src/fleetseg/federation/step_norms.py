"""Limits on the norm per step of a client's change, as a multiple of the fleet's recent norms.

An operator who knows neither the network nor the data cannot set a bound in advance, but earlier
rounds give one. A change is the sum of a round's steps, so norms are compared per step, for as many
steps as the client's images give. Norms of changes that were refused for their norm count as well:
if all grow at once (a learning rate that warms up), one round is lost and the next has new bounds,
and a few malicious clients hardly move the fleet's median. Vehicles with and without labels have
separate medians, since those that learn from few confident pixels change far less.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Protocol

from fleetseg.federation.messages import Enrolment

_LATEST = 5
"""Number of newest rounds considered: older ones had a different learning rate."""
_LEAST = 3
"""With fewer norms, a single malicious client could set the median."""


class _Record(Protocol):
    @property
    def step_norms(self) -> Mapping[str, float]: ...


def norms_allowed(
    records: Sequence[_Record], clients: Mapping[str, Enrolment], times: float
) -> dict[str, float]:
    """Return the largest norm per step of each client's change (L2 of the trainable values).

    Clients are left out if too little is known. `times` multiplies the median norm of the newest
    rounds; 0 = no client has a bound.
    """
    latest = [record.step_norms for record in records if record.step_norms][-_LATEST:]
    bounds: dict[bool, float] = {}
    for labelled in (False, True):
        norms = [
            norm
            for of_round in latest
            for client, norm in of_round.items()
            if client in clients and _has_labels(clients[client]) == labelled
        ]
        if len(norms) >= _LEAST:
            bounds[labelled] = times * statistics.median(norms)
    return {
        client: bounds[_has_labels(enrolled)]
        for client, enrolled in clients.items()
        if bounds.get(_has_labels(enrolled), 0) > 0
    }


def _has_labels(enrolled: Enrolment) -> bool:
    return enrolled.num_pixels > 0
