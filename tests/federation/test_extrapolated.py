"""FedExP: how far the mean is taken, by hand, at its extremes and against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from fleetseg.config import FederationConfig
from fleetseg.federation.aggregate import FixedPointMean, Opening
from fleetseg.federation.extrapolated import ExtrapolatedMean

Floats = npt.NDArray[np.float32]


def settings(eps: float = 1e-9, eps_decay: float = 1.0) -> FederationConfig:
    given = {"extrapolated": {"eps": eps, "eps_decay": eps_decay}}
    return FederationConfig.model_validate(given)


def fold(
    rows: Sequence[Sequence[float]],
    weights: Sequence[int] | None = None,
    how: FederationConfig | None = None,
    num_trainable: int | None = None,
    round_: int = 1,
) -> Floats:
    named = {f"car-{k}": w for k, w in enumerate(weights or [1] * len(rows))}
    size = len(rows[0])
    opening = Opening(
        size, size if num_trainable is None else num_trainable, named, how or settings(),
        round=round_,
    )  # fmt: skip
    mean = ExtrapolatedMean(opening)
    for client, row in zip(named, rows, strict=True):
        mean.add(client, np.array(row, np.float32))
    return mean.finish()


def test_by_hand() -> None:
    """Lengths 9 and 25, mean (1.5, 2.5), squared 8.5: e = 17 / 17 = 1; with (3, -4) it is more."""
    assert fold([[3, 0], [0, 5]]).tolist() == pytest.approx([1.5, 2.5])
    # Mean (0, 1), squared 1; (3^2 + 1 + 3^2 + 1) / 2 / 2 = 5.
    assert fold([[3, 1], [-3, 1]]).tolist() == pytest.approx([0, 5], rel=1e-6)
    # eps once for each client: 10 / (2 (1 + 2 0.75)) = 2.
    assert fold([[3, 1], [-3, 1]], how=settings(0.75)).tolist() == pytest.approx([0, 2])


def test_weights_are_those_of_the_mean() -> None:
    """Mean (1, 1) of thrice (2, 1) and once (-2, 1): e = (3/4 5 + 1/4 5) / (2 2) = 1.25."""
    assert fold([[2, 1], [-2, 1]], [3, 1]).tolist() == pytest.approx([1.25, 1.25])


def test_of_equal_changes_it_is_the_mean() -> None:
    """e would be 1/2."""
    assert fold([[1, -2, 3]] * 4).tolist() == [1, -2, 3]


@pytest.mark.parametrize("count", [2, 3, 8])
def test_of_orthogonal_changes_of_one_length_it_is_half_as_many_times_as_clients(
    count: int,
) -> None:
    got = fold(np.eye(count).tolist())
    assert got.tolist() == pytest.approx([max(1, count / 2) / count] * count)


def test_eps_shrinks_with_the_rounds() -> None:
    how = settings(0.75, 0.5)
    assert fold([[3, 1], [-3, 1]], how=how, round_=3).tolist() == pytest.approx(
        [0, 10 / (2 * (1 + 2 * 0.75 * 0.25))]
    )


def test_what_is_not_trainable_becomes_its_plain_mean_and_does_not_count() -> None:
    got = fold([[3, 1, 100], [-3, 1, 200]], num_trainable=2)
    assert got.tolist() == pytest.approx([0, 5, 150], rel=1e-6)


def test_it_is_numpy_s_whatever_the_order_of_arrival() -> None:
    draw = np.random.Generator(np.random.Philox(3))
    size, weights = 70_001, {"a": 3, "b": 5, "c": 4, "lost": 11}
    changes = {c: (0.01 * draw.standard_normal(size)).astype(np.float32) for c in weights}
    seen = set()
    for order in itertools.permutations("abc"):
        mean = ExtrapolatedMean(Opening(size, size, weights, settings()))
        for client in order:
            mean.add(client, changes[client])
        seen.add(mean.finish().tobytes())
    assert len(seen) == 1
    rows = np.stack([changes[c].astype(np.float64) for c in "abc"])
    shares = np.array([3, 5, 4]) / 12
    exact = shares @ rows
    e = shares @ (rows**2).sum(1) / (2 * ((exact**2).sum() + 3e-9))
    assert e > 1
    got = np.frombuffer(seen.pop(), np.float32)
    np.testing.assert_allclose(got, e * exact, rtol=1e-5, atol=1e-8)


def test_changes_that_cancel_leave_the_model_where_it_is() -> None:
    assert fold([[1, 2], [-1, -2]], how=settings(1e-3)).tolist() == [0, 0]
    gone = settings(5e-324, 0.1)  # its eps is 0 in the second round
    assert fold([[1, 2], [-1, -2]], how=gone, round_=2).tolist() == [0, 0]


def test_memory_is_the_mean_s_own() -> None:
    opening = Opening(4, 4, {"a": 1}, settings())
    mean, plain = ExtrapolatedMean(opening), FixedPointMean(4, {"a": 1})
    change = np.array([1, 2, 3, 4], np.float32)
    for aggregator in (mean, plain):
        aggregator.add("a", change)
    assert change.tolist() == [1, 2, 3, 4]
    assert mean.finish().tobytes() == plain.finish().tobytes()
