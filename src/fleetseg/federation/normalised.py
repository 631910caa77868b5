"""FedNova: clients' changes are averaged per unit of work, so that more steps add no weight.

Wang et al. 2020, Tackling the Objective Inconsistency Problem in Heterogeneous Federated
Optimization, arXiv 2007.07481, Section 4: with p_i a client's share of the weights, D_i its change
and a_i how far its steps carry a gradient (`learning.travel`),

    w <- w + a sum p_i D_i / a_i,    a = sum p_i a_i.

This applies to trainable values; everything else that is exchanged is averaged. If all a_i are
equal, this is FedAvg bit for bit: changes are scaled by r / a_i, and their mean by a / r, where r
is the a_i of the fewest steps that a full round takes in this cohort.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregate import MAX_VALUE, FixedPointMean, Opening

Floats = npt.NDArray[np.float32]


class NormalisedMean:
    """FedNova's `Aggregator`; besides the mean it needs memory for one model if steps differ."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._mean = FixedPointMean(opening.size, opening.weights)
        # r; with an empty cohort there is nothing to scale.
        self._reference = opening.travel(min(opening.steps.values(), default=1))
        self._travels: dict[str, float] = {}  # a_i of the changes added
        self._scaled_F: Floats = np.empty(0, dtype=np.float32)

    def add(self, client_id: str, change_F: Floats, num_steps: int = 1) -> None:
        """See Aggregator.

        Also refuses a change that exceeds the limits once it is scaled up for its few steps.
        """
        travel = self._opening.travel_of(client_id, num_steps)
        self._mean.add(client_id, self._scaled(change_F, self._reference / travel))
        self._travels[client_id] = travel

    def finish(self) -> Floats:
        """See Aggregator."""
        weights = self._opening.weights
        total = sum(weights[client] for client in self._travels)
        # Differences and an exact sum: with equal travels the factor is exactly 1, and it never
        # depends on the order of arrival.
        above = (weights[c] / total * (a - self._reference) for c, a in self._travels.items())
        factor = 1 + math.fsum(above) / self._reference
        change_F = self._mean.finish()
        change_F[: self._opening.num_trainable] *= factor
        return change_F

    def _scaled(self, change_F: Floats, factor: float) -> Floats:
        if factor == 1:
            return change_F
        num = self._opening.num_trainable
        if factor > 1:
            self._require_small(change_F[:num], factor)
        if not self._scaled_F.size:
            self._scaled_F = np.empty_like(change_F)
        np.multiply(change_F[:num], factor, out=self._scaled_F[:num])
        self._scaled_F[num:] = change_F[num:]
        return self._scaled_F

    def _require_small(self, change_T: Floats, factor: float) -> None:
        largest = float(np.abs(change_T).max()) * factor
        if largest > MAX_VALUE:
            raise UpdateRejected(
                "magnitude",
                "a value is too large for so few steps",
                got=largest,
                expected=f"<= {MAX_VALUE}",
            )
        max_norm = self._opening.settings.max_update_norm
        norm = math.sqrt(float(np.dot(change_T, change_T))) * factor
        if 0 < max_norm < norm:
            raise UpdateRejected(
                "norm",
                "the update is too large (L2) for so few steps",
                got=round(norm, 3),
                expected=f"<= {max_norm}",
            )
