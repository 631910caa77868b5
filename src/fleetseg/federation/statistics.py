"""How the running statistics of a cohort's norm layers become those of the global model.

A rule is a `StatisticsRule` in `STATISTICS`. What clients send is the same for all of them: the
changes of their running means and variances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.errors import UpdateRejected
from fleetseg.federation.aggregate import MAX_VALUE
from fleetseg.federation.tensors import Layout

Floats_F = npt.NDArray[np.float32]


@dataclass(frozen=True)
class StatisticsRule:
    """One rule.

    Args:
        fold: (a client's change, layout) -> what is aggregated of it, in memory of its own; may
            raise UpdateRejected. None = the change as it is.
        finish: (the aggregate, layout): makes changes of the statistics of it, in place.
        estimated: they are estimated anew on the clients before a model is published.
    """

    fold: Callable[[Floats_F, Layout], Floats_F] | None = None
    finish: Callable[[Floats_F, Layout], None] = lambda mean_F, layout: None
    estimated: bool = False


def _with_squares(change_F: Floats_F, layout: Layout) -> Floats_F:
    """Add to each change of a variance the square of its mean's."""
    folded_F = change_F.copy()
    means_V, variances_V = layout.means_V.numpy(), layout.variances_V.numpy()
    folded_F[variances_V] += np.square(change_F[means_V])
    largest = float(np.abs(folded_F[variances_V]).max(initial=0.0))
    if not largest <= MAX_VALUE:
        raise UpdateRejected(
            "magnitude", "a running mean leaps", got=largest, expected=f"<= {MAX_VALUE}"
        )
    return folded_F


def _without_square(mean_F: Floats_F, layout: Layout) -> None:
    """Make pooled variances of it.

    With m_i and v_i the statistics of client i and m those that were sent, the pooled ones are
    mu = sum p_i m_i and v = sum p_i (v_i + m_i^2) - mu^2. A variance does not depend on where zero
    is, so both squares are taken of the difference from m: nothing cancels where m is large, and
    clients need not know.
    """
    mean_F[layout.variances_V.numpy()] -= np.square(mean_F[layout.means_V.numpy()])


STATISTICS: dict[str, StatisticsRule] = {
    "mean": StatisticsRule(),
    "pooled": StatisticsRule(_with_squares, _without_square),
    "estimated": StatisticsRule(estimated=True),
}
