"""Means and deviations over models: by hand, against numpy, and of a run's last rounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.records import record, scored

from fleetseg.runs.figures import Spread, last_scored, spread


def test_by_hand() -> None:
    # Mean 4; deviations -2, 0, 2; their squares make 8; over n - 1 = 2 that is 4.
    assert spread([2.0, 4.0, 6.0]) == Spread(4.0, 2.0, 3)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_as_numpy_has_it(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert found.n == len(values)


def test_one_model_has_no_deviation_and_none_has_no_figure() -> None:
    assert spread([0.5]) == Spread(0.5, None, 1)
    assert spread([0.5, None, math.nan]) == Spread(0.5, None, 1)
    assert spread([]) is None
    assert spread([None]) is None


def test_last_rounds_are_those_that_were_scored() -> None:
    rounds = [
        record(1, scored=scored(0.1)),
        record(2),
        record(3, scored=scored(0.2)),
        record(4, scored=scored(0.4)),
        record(5),
    ]
    two = last_scored(rounds, 2)
    assert two is not None
    assert [one.miou for one in two] == pytest.approx([0.2, 0.4], abs=1e-6)
    assert last_scored(rounds, 3) is not None
    assert last_scored(rounds, 4) is None
    assert last_scored(rounds, 0) is None
