"""Rules that aggregate the running statistics of norm layers over a cohort.

A rule is a `StatisticsRule` in `STATISTICS`. With every rule, clients send the same: the changes of
their running means and variances.
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
        fold: (a client's change, layout) -> what is aggregated instead, in new memory; may raise
            UpdateRejected. None = the change as it is.
        finish: (the aggregate, layout): turns it into changes of the statistics, in place.
        estimated: whether clients re-estimate statistics before a model is published.
    """

    fold: Callable[[Floats_F, Layout], Floats_F] | None = None
    finish: Callable[[Floats_F, Layout], None] = lambda mean_F, layout: None
    estimated: bool = False


def _with_squares(change_F: Floats_F, layout: Layout) -> Floats_F:
    """Add to each variance's change the square of the change of its mean."""
    folded_F = change_F.copy()
    means_V, variances_V = layout.means_V.numpy(), layout.variances_V.numpy()
    folded_F[variances_V] += np.square(change_F[means_V])
    largest = float(np.abs(folded_F[variances_V]).max(initial=0.0))
    if not largest <= MAX_VALUE:
        raise UpdateRejected(
            "magnitude", "a running mean changes too much", got=largest, expected=f"<= {MAX_VALUE}"
        )
    return folded_F


def _without_square(mean_F: Floats_F, layout: Layout) -> None:
    """Turn aggregated squares into changes of pooled variances.

    With m_i and v_i the statistics of client i, and m the mean that was sent, the pooled ones are
    mu = sum p_i m_i and v = sum p_i (v_i + m_i^2) - mu^2. A variance does not depend on the origin,
    so both squares are of differences from m: nothing cancels if m is large, and clients need not
    know of this.
    """
    mean_F[layout.variances_V.numpy()] -= np.square(mean_F[layout.means_V.numpy()])


STATISTICS: dict[str, StatisticsRule] = {
    "mean": StatisticsRule(),
    "pooled": StatisticsRule(_with_squares, _without_square),
    "estimated": StatisticsRule(estimated=True),
}
