"""q-FedAvg: the server's step favours clients with a high loss.

Li, Sanjabi, Beirami, Smith 2020, arXiv 1905.10497, Algorithm 2, which minimises
sum_k p_k F_k^(q+1) / (q+1). With y_k a client's trained model and F_k its loss on the received one:

    Delta_k = F_k^q L (w - y_k),   h_k = q F_k^(q-1) ||L (w - y_k)||^2 + L F_k^q,
    w <- w - sum_k Delta_k / sum_k h_k.

The paper draws clients in proportion to p_k. Where all are asked, both sums are weighted by p_k
instead: with q = 0 this is the weighted mean. Statistics of norm layers, and everything else that
is sent, are averaged with weights p_k F_k^q.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from fleetseg.config import FederationConfig
from fleetseg.federation.aggregate import Aggregator, Opening
from fleetseg.federation.known import RECEIVED_LOSS
from fleetseg.federation.robust import spooled

Floats = npt.NDArray[np.float32]
_COLUMNS = 1 << 16  # at a time, so that memory does not grow with the model
_LEAST_LOSS = 1e-10  # as in the authors' code: F^(q-1) is infinite for a loss of zero


def q_fedavg(opening: Opening) -> Aggregator:
    """Make the aggregator of a round."""
    return spooled(partial(_step, opening.measures, opening.num_trainable))(opening)


def _step(
    measures: Mapping[str, Mapping[str, float]],
    num_trainable: int,
    changes_NF: Floats,
    weights_N: npt.NDArray[np.int64],
    settings: FederationConfig,
) -> Floats:
    loss_N = np.array([max(measures[c][RECEIVED_LOSS], _LEAST_LOSS) for c in sorted(measures)])
    return combine(changes_NF, weights_N, loss_N, num_trainable, settings)


def combine(
    changes_NF: Floats,
    weights_N: npt.NDArray[np.int64],
    loss_N: npt.NDArray[np.float64],
    num_trainable: int,
    settings: FederationConfig,
) -> Floats:
    """Return the step for the first T = `num_trainable` values, and the mean for the others.

    A client's change is y_k - w, so it is added.
    """
    q, lipschitz = settings.qffl.q, settings.qffl.lipschitz
    # Relative to the highest loss, a common factor of both sums, so that no power overflows.
    share_N = weights_N / weights_N.sum() * (loss_N / loss_N.max()) ** q
    curve_N = 1 + q / loss_N * lipschitz * _squares(changes_NF, num_trainable)  # h_k / (L F_k^q)
    by_h_N, by_mean_N = share_N / (share_N * curve_N).sum(), share_N / share_N.sum()
    step_F: Floats = np.empty(changes_NF.shape[1], dtype=np.float32)
    for start, stop in _spans(num_trainable, changes_NF.shape[1]):
        by_N = by_h_N if stop <= num_trainable else by_mean_N
        # Client by client: a matrix product may add in a different order on another machine.
        rows = zip(by_N, changes_NF, strict=True)
        step_F[start:stop] = sum(by * np.float64(row_F[start:stop]) for by, row_F in rows)
    return step_F


def _squares(changes_NF: Floats, num_trainable: int) -> npt.NDArray[np.float64]:
    """Return the squared norms (N) of the trainable values."""
    total_N = np.zeros(len(changes_NF))
    for start, stop in _spans(num_trainable, num_trainable):
        total_N += np.square(changes_NF[:, start:stop], dtype=np.float64).sum(axis=1)
    return total_N


def _spans(num_trainable: int, size: int) -> list[tuple[int, int]]:
    """Cut the trainable values, and then the rest, into parts."""
    parts = ((0, num_trainable), (num_trainable, size))
    return [
        (start, min(start + _COLUMNS, stop))
        for first, stop in parts
        for start in range(first, stop, _COLUMNS)
    ]
