"""FedExP: the mean change is extrapolated further the less the clients' changes agree.

Jhunjhunwala, Wang, Joshi 2023, FedExP: Speeding Up Federated Averaging via Extrapolation,
arXiv 2301.09604, Section 3: with p_i a client's share of the weights, D_i its change, D their mean
over m clients,

    w <- w + e D,    e = max(1, sum p_i |D_i|^2 / (2 (|D|^2 + m eps))).

Norms are over all trainable values together, in float64. Everything else that is exchanged is
averaged. This is an aggregator, because only aggregators see each client's change.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fleetseg.federation.aggregate import FixedPointMean, Opening

Floats = npt.NDArray[np.float32]
_CHUNK = 1 << 15  # values per pass: 256 KiB of float64


class ExtrapolatedMean:
    """FedExP's `Aggregator`; besides the mean it keeps one number per client."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._mean = FixedPointMean(opening.size, opening.weights)
        self._squares: dict[str, float] = {}  # |D_i|^2 of the changes added

    def add(self, client_id: str, change_F: Floats, num_steps: int = 1) -> None:
        """See Aggregator."""
        self._mean.add(client_id, change_F)
        self._squares[client_id] = _square(change_F[: self._opening.num_trainable])

    def finish(self) -> Floats:
        """See Aggregator."""
        weights, squares = self._opening.weights, self._squares
        total = sum(weights[client] for client in squares)
        mean_square = math.fsum(weights[c] / total * square for c, square in squares.items())
        change_F = self._mean.finish()
        change_T = change_F[: self._opening.num_trainable]
        change_T *= self.factor(mean_square, _square(change_T), len(squares))
        return change_F

    def factor(self, mean_square: float, square_of_mean: float, num_clients: int) -> float:
        """Return e, from sum p_i |D_i|^2, |D|^2 and m."""
        settings = self._opening.settings.extrapolated
        eps = settings.eps * settings.eps_decay ** (self._opening.round - 1)
        below = 2 * (square_of_mean + num_clients * eps)
        return max(1.0, mean_square / below) if below else 1.0


def _square(vector_T: Floats) -> float:
    """Return the squared norm, summed in a fixed order so that the bits are always the same."""
    total = 0.0
    for start in range(0, vector_T.size, _CHUNK):
        part = vector_T[start : start + _CHUNK].astype(np.float64)
        total += float(np.square(part, out=part).sum())
    return total
