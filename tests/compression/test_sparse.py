"""Top-k: the largest values are chosen, and their places survive being packed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fleetseg.compression import sparse

floats = arrays(np.float32, st.integers(1, 80), elements=st.floats(-9, 9, width=32))


@pytest.mark.parametrize(
    ("share", "size", "count"), [(0.01, 250, 3), (0.01, 1, 1), (1.0, 7, 7), (0.5, 4, 2)]
)
def test_count(share: float, size: int, count: int) -> None:
    assert sparse.count_of(share, size) == count


@given(floats, st.integers(1, 80))
def test_largest_are_those_of_torch_topk(values: np.ndarray, count: int) -> None:
    count = min(count, values.size)
    chosen = sparse.largest(values, count)
    assert np.array_equal(chosen, np.unique(chosen))
    assert chosen.size == count
    magnitudes = torch.from_numpy(np.abs(values)).topk(count).values.numpy()
    assert np.array_equal(np.sort(np.abs(values[chosen]))[::-1], magnitudes)


def test_nan_is_sent_not_hidden() -> None:
    values = np.array([1, np.nan, 2, np.inf], np.float32)
    assert sparse.largest(values, 2).tolist() == [1, 3]


@given(st.sets(st.integers(0, 10**6)))
def test_gaps_round_trip(positions: set[int]) -> None:
    ascending = np.array(sorted(positions), dtype=np.int64)
    assert np.array_equal(sparse.from_gaps(sparse.to_gaps(ascending)), ascending)


@given(arrays(np.uint32, st.integers(0, 30), elements=st.integers(0, 2**32 - 1)))
def test_any_gaps_are_ascending_positions(gaps: np.ndarray) -> None:
    assert (np.diff(sparse.from_gaps(gaps), prepend=-1) > 0).all()
