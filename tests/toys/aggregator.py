"""An aggregator that needs all changes of a round at once: this file, and a line in a dict."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetseg.config import FederationConfig
from fleetseg.federation.robust import spooled

COLUMNS = 1 << 16  # at a time, so that memory does not grow with the cohort
Floats = npt.NDArray[np.float32]


def median(
    changes_NF: Floats, weights_N: npt.NDArray[np.int64], settings: FederationConfig
) -> Floats:
    """Take the middle of all clients for each value, whatever they weigh."""
    middle_F: Floats = np.empty(changes_NF.shape[1], dtype=np.float32)
    for start in range(0, middle_F.size, COLUMNS):
        middle_F[start : start + COLUMNS] = np.median(
            changes_NF[:, start : start + COLUMNS], axis=0
        )
    return middle_F


TOY_MEDIAN = spooled(median)
