"""How long a client's change may be: a few times what the fleet's have been lately, by the step.

An operator who knows neither the network nor the data cannot name a bound in advance; the rounds
before tell one. A change is the sum of a round's steps, so norms are compared by the step, of as
many steps as the client's images make, or fewer where it says that it took fewer. Norms of changes
that were refused for their length count as well: where all grow at once (a rate that warms up), one
round is lost and the next has other bounds, and of the fleet's median a few liars change little.
Vehicles with labels and those without have a median each, since those that learn from few sure
pixels move less by far.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Protocol

from fleetseg.federation.messages import Enrolment

_LATEST = 5
"""Newest rounds that are looked at: the learning rate of older ones was another."""
_LEAST = 3
"""Fewer norms have no median that a liar among them could not set."""


class _Record(Protocol):
    @property
    def step_norms(self) -> Mapping[str, float]: ...


def norms_allowed(
    records: Sequence[_Record], clients: Mapping[str, Enrolment], times: float
) -> dict[str, float]:
    """Return how long a step of each client's change may be (L2 of the trainable values).

    Clients are left out where too little is known. `times` is of the median of the newest rounds'
    norms; 0 = no client has a bound.
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
