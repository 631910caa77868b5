"""Client weights by how rare their classes are in the fleet.

Each class in the fleet has one vote, divided among the clients in proportion to their pixels of it:
w_i = sum_c h_ic / H_c, where h_ic are a client's pixels of class c and H_c those of the fleet. In
other words, a pixel counts by 1 / H_c, the inverse frequency of its class. The weights of a fleet
add up to the number of its classes, so no client has more than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fleetseg.federation.known import Known
from fleetseg.federation.messages import Enrolment

Floats = npt.NDArray[np.float32]

CLASS_COUNTS = "class_counts"


def class_counts(enrolled: Mapping[str, Enrolment]) -> Floats:
    """Return the fleet's pixels of each class (C)."""
    counts_NC = np.array([e.histogram_C for e in enrolled.values()], dtype=np.int64)
    total_C: Floats = counts_NC.sum(axis=0).astype(np.float32)
    return total_C


def class_rarity(known: Known) -> dict[str, float]:
    """Weigh clients; a class that no client held when the run began adds no weight."""
    fleet_C = known.facts[CLASS_COUNTS].astype(np.float64)
    votes_C = [1 / count if count > 0 else 0.0 for count in fleet_C.tolist()]
    return {
        client: math.fsum(n * vote for n, vote in zip(e.histogram_C, votes_C, strict=True))
        for client, e in known.enrolled.items()
    }
