"""Weights: integers of real ones, and what a weighting remembers between rounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.federation.weights import RESOLUTION, as_integers

REAL = st.dictionaries(st.text(max_size=3), st.floats(0, 1e300), max_size=8)


def test_integers_by_hand() -> None:
    assert as_integers({"a": 0.25, "b": 1.0, "c": 0.0}) == {"a": 2**18, "b": 2**20, "c": 1}
    assert as_integers({"a": 0.0, "b": 0.0}) == {"a": 1, "b": 1}
    assert as_integers({}) == {}


@given(REAL)
def test_integers_are_the_real_ones_to_their_resolution_in_any_order(
    real: dict[str, float],
) -> None:
    whole = as_integers(real)
    assert as_integers(dict(reversed(real.items()))) == whole
    assert all(1 <= w <= RESOLUTION for w in whole.values())
    largest = max(real.values(), default=0.0)
    if largest > 0:
        for client, weight in real.items():
            near = pytest.approx(weight / largest, abs=0.5001 / RESOLUTION)
            assert whole[client] / RESOLUTION == near or whole[client] == 1
