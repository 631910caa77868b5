"""Sampling without replacement, with inclusion probabilities exactly proportional to size.

Drawing one after another, as numpy does, does not achieve this: with sizes 2, 1, 1 and two draws,
the first would be drawn in 5 of 6 cases, not always.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np


def certain(sizes: Sequence[int], count: int) -> list[int]:
    """Return the indices drawn for sure: with m draws left from a total X, sizes of X / m or more.

    >>> certain([1, 9, 1, 3], 3)
    [1, 3]
    """
    sure: list[int] = []
    while len(sure) < count:
        rest = [k for k in range(len(sizes)) if k not in set(sure)]
        total, left = sum(sizes[k] for k in rest), count - len(sure)
        more = [k for k in rest if sizes[k] * left >= total]
        if not more:
            break
        sure += more
    return sorted(sure)


def draw_proportional(
    sizes: Sequence[int], count: int, generator: np.random.Generator
) -> list[int]:
    """Draw `count` different indices by their sizes (above zero); systematic, in random order.

    For a size x that is not certain, with m draws left from a total X, the probability is exactly
    m x / X (Madow 1949): the m points (u + k X) / m, with u drawn from 0 to X - 1, fall into
    intervals as long as the sizes, none of which is long enough for two points.
    """
    assert 0 <= count <= len(sizes)
    sure = certain(sizes, count)
    left = count - len(sure)
    if left <= 0:
        return sure[:count]
    is_sure = set(sure)
    rest = [int(k) for k in generator.permutation(len(sizes)) if int(k) not in is_sure]
    ends = list(accumulate(sizes[k] * left for k in rest))
    total = ends[-1] // left
    start = int(generator.integers(total))
    return sure + [rest[bisect_right(ends, start + k * total)] for k in range(left)]
