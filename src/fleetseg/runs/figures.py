"""Statistics over several models: mean and deviation over seeds, or over a run's last rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleetseg.evaluation.scored import Scored
from fleetseg.federation.records import RoundRecord


@dataclass(frozen=True)
class Spread:
    """The mean of one figure over several models, and its deviation."""

    mean: float
    std: float | None  # of the sample (divided by n - 1); None for a single model
    n: int


def spread(figures: Iterable[float | None]) -> Spread | None:
    """Return the mean and sample deviation of the figures that are not None; None if all are.

    >>> spread([2.0, 4.0, 6.0, None])
    Spread(mean=4.0, std=2.0, n=3)
    """
    known = [figure for figure in figures if figure is not None and not math.isnan(figure)]
    if not known:
        return None
    mean, n = math.fsum(known) / len(known), len(known)
    if n == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in known) / (n - 1)), n)


def last_scored(records: Sequence[RoundRecord], number: int) -> list[Scored] | None:
    """Return the scores of the last `number` scored rounds, oldest first; None if there are fewer.

    Source: FedDrive (Fantauzzo et al. 2022, arXiv 2202.13670), which publishes the mean and the
    deviation over the last 100 rounds, because single rounds of few clients fluctuate.
    """
    scored = [record.scored for record in records if record.scored is not None]
    return scored[-number:] if 0 < number <= len(scored) else None
