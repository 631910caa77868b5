"""The server's part of FedFA: the variances over vehicles of the statistics of their features.

Vehicles send how their statistics differ from the last mean over vehicles (learning.fedfa). With d
the difference of one of them, the mean moves by the mean of d, and the variance over vehicles is

    v = mean d^2 - (mean d)^2,

both means over the updates that count, weighted like these. So the server adds up two vectors and
keeps no vehicle's own. A variance does not depend on the origin: nothing cancels if the statistics
themselves are large, except in the first round, when the last mean is 0. With one update v is 0,
which is the same as not knowing it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.errors import UpdateRejected
from fleetseg.federation.tensors import Layout
from fleetseg.learning.fedfa import FEATURES, MAX_DIFFERENCE, SPREAD


def squares_of(change_F: Tensor, layout: Layout) -> Tensor:
    """Return the squares of a vehicle's differences.

    Raises:
        UpdateRejected: a difference is larger than vehicles send.
    """
    differences_V = change_F[layout.spans[FEATURES]]
    if (largest := float(differences_V.abs().max())) > MAX_DIFFERENCE:
        raise UpdateRejected(
            "magnitude",
            "a feature statistic is too far from the fleet's",
            where=FEATURES,
            got=largest,
            expected=f"<= {MAX_DIFFERENCE:g}",
        )
    return differences_V.square()


def finish_variances(mean_F: npt.NDArray[np.float32], layout: Layout) -> None:
    """Turn the mean of squares into variances over vehicles, in place; nothing without FedFA."""
    if SPREAD not in layout.spans:
        return
    squares_V, mean_V = mean_F[layout.spans[SPREAD]], mean_F[layout.spans[FEATURES]]
    squares_V -= np.square(mean_V)
    np.maximum(squares_V, 0, out=squares_V)  # rounding


def _replaced(before_V: Tensor, new_V: Tensor) -> Tensor:
    return new_V


ADVANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {FEATURES: torch.add, SPREAD: _replaced}
"""(a vector, its aggregate) -> the new vector."""
