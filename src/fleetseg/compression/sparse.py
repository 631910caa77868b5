"""The largest changes of an update, and their positions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


def count_of(share: float, size: int) -> int:
    """Return the number of values in a share of `size`: at least one, at most all."""
    return min(size, max(1, math.ceil(share * size)))


def largest(values: npt.NDArray[np.float32], count: int) -> Positions:
    """Return the sorted positions of the `count` largest magnitudes; NaN counts as largest."""
    if count == values.size:
        return np.arange(values.size, dtype=np.int64)
    chosen = np.argpartition(np.abs(values), values.size - count)[values.size - count :]
    chosen.sort()
    return chosen


def to_gaps(positions: Positions) -> npt.NDArray[np.uint32]:
    """Convert ascending positions to the number of values skipped before each."""
    return (np.diff(positions, prepend=-1) - 1).astype(np.uint32)


def from_gaps(gaps: npt.NDArray[np.uint32]) -> Positions:
    """Undo `to_gaps`; the result is ascending whatever the gaps."""
    return np.cumsum(gaps.astype(np.int64) + 1) - 1
