"""Draws in proportion to size: the probabilities are exact, counted over all that can be drawn."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.federation.proportional import certain, draw_proportional


class Told:
    """A generator whose order and start are given."""

    def __init__(self, order: list[int], start: int = 0) -> None:
        self.order, self.start, self.below = order, start, 0

    def permutation(self, size: int) -> np.ndarray:
        return np.array(self.order)

    def integers(self, below: int) -> int:
        self.below = below
        return self.start


def inclusion(sizes: list[int], count: int, order: list[int]) -> list[Fraction]:
    """Of each number, in how many of all starts it is drawn."""
    probe: Any = Told(order)
    draw_proportional(sizes, count, probe)
    starts = probe.below or 1
    drawn: Counter[int] = Counter()
    for start in range(starts):
        told: Any = Told(order, start)
        chosen = draw_proportional(sizes, count, told)
        assert len(chosen) == len(set(chosen)) == count
        drawn.update(chosen)
    return [Fraction(drawn[k], starts) for k in range(len(sizes))]


@given(st.data())
def test_each_is_drawn_with_a_probability_exactly_proportional_to_its_size(
    data: st.DataObject,
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=7))
    count = data.draw(st.integers(0, len(sizes)))
    order = data.draw(st.permutations(range(len(sizes))))
    chances = inclusion(sizes, count, list(order))
    assert sum(chances) == count
    sure = certain(sizes, count)
    rest = [k for k in range(len(sizes)) if k not in sure]
    total, left = sum(sizes[k] for k in rest), count - len(sure)
    assert all(chances[k] == 1 for k in sure)
    assert all(chances[k] == Fraction(left * sizes[k], total) for k in rest)
    assert all(left * sizes[k] < total for k in rest)


def test_by_hand() -> None:
    assert inclusion([1, 2, 3], 1, [0, 1, 2]) == [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]
    assert inclusion([2, 1, 1], 2, [2, 0, 1]) == [1, Fraction(1, 2), Fraction(1, 2)]
    assert certain([100, 10, 1, 1], 3) == [0, 1]  # 10 of 12 with two places left
    assert draw_proportional([5, 5], 0, np.random.Generator(np.random.Philox(0))) == []


def test_numpy_s_draws_are_not_proportional_and_ours_are() -> None:
    sizes, generator = [6, 3, 2, 1], np.random.Generator(np.random.Philox(1))
    ours = Counter(k for _ in range(6000) for k in draw_proportional(sizes, 2, generator))
    assert ours[0] == 6000  # 6 * 2 / 12: always
    assert [ours[k] / 6000 for k in (1, 2, 3)] == pytest.approx([3 / 6, 2 / 6, 1 / 6], abs=0.025)
    theirs = Counter(
        int(k)
        for _ in range(2000)
        for k in generator.choice(4, size=2, replace=False, p=np.array(sizes) / 12)
    )
    assert theirs[0] < 1900


def test_sizes_of_any_length() -> None:
    generator = np.random.Generator(np.random.Philox(2))
    sizes = [1 << 24] * 5000
    drawn = draw_proportional(sizes, 4999, generator)
    assert len(set(drawn)) == 4999
