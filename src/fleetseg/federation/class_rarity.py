"""Weights by how rare a client's classes are in the fleet.

Each class that the fleet has hands out one vote, shared among the clients in proportion to the
pixels of it that they hold: w_i = sum_c h_ic / H_c, where h_ic are a client's pixels of class c and
H_c those of the fleet. In other words, a pixel counts by 1 / H_c, the inverse frequency of its
class. The weights of a fleet add up to the number of its classes, and no client has more.
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
    """Add up what clients hold of each class, in pixels (C)."""
    counts_NC = np.array([e.histogram_C for e in enrolled.values()], dtype=np.int64)
    total_C: Floats = counts_NC.sum(axis=0).astype(np.float32)
    return total_C


def class_rarity(known: Known) -> dict[str, float]:
    """Weigh clients; a class that nobody held when the run began counts for nobody."""
    fleet_C = known.facts[CLASS_COUNTS].astype(np.float64)
    votes_C = [1 / count if count > 0 else 0.0 for count in fleet_C.tolist()]
    return {
        client: math.fsum(n * vote for n, vote in zip(e.histogram_C, votes_C, strict=True))
        for client, e in known.enrolled.items()
    }
