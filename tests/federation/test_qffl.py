"""q-FedAvg: the paper's sums by hand, and what it is for q = 0 and for one client."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import FederationConfig, QfflConfig
from fleetseg.federation.aggregate import Opening
from fleetseg.federation.aggregators import AGGREGATORS
from fleetseg.federation.qffl import combine


def how(q: float, lipschitz: float = 4.0) -> FederationConfig:
    settings = QfflConfig(q=q, lipschitz=lipschitz)
    return FederationConfig(aggregator="q-fedavg", qffl=settings)


def paper(
    changes: Sequence[np.ndarray], losses: Sequence[float], q: float, lipschitz: float
) -> np.ndarray:
    """Algorithm 2 as it is written, clients drawn in proportion to their weights."""
    gradients = [-lipschitz * change for change in changes]  # L (w - y)
    deltas = [f**q * g for f, g in zip(losses, gradients, strict=True)]
    curvatures = [
        q * f ** (q - 1) * float(g @ g) + lipschitz * f**q
        for f, g in zip(losses, gradients, strict=True)
    ]
    return -sum(deltas) / sum(curvatures)


CHANGES = np.array([[1, 2, 0], [-1, 0, 3], [0.5, 0.5, 0.5]], dtype=np.float32)


@pytest.mark.parametrize("q", [0.0, 0.1, 1.0, 2.0, 5.0])
def test_it_is_the_paper_s(q: float) -> None:
    losses = [0.5, 2.0, 1.0]
    step_F = combine(CHANGES, np.array([1, 1, 1]), np.array(losses), 3, how(q))
    expected = paper(CHANGES.astype(np.float64), losses, q, 4.0)
    assert step_F == pytest.approx(expected, rel=1e-6)


def test_by_hand() -> None:
    # q = 1, L = 1: Delta_a = 2 * 1, Delta_b = 1 * 3; h_a = 1 + 2, h_b = 9 + 1.
    changes = np.array([[-1], [-3]], dtype=np.float32)
    step = combine(changes, np.array([1, 1]), np.array([2.0, 1.0]), 1, how(1.0, 1.0))
    assert step.tolist() == pytest.approx([-(2 + 3) / (3 + 10)])


def test_with_q_of_zero_it_is_the_weighted_mean() -> None:
    step = combine(CHANGES, np.array([1, 2, 5]), np.array([9.0, 1.0, 0.1]), 3, how(0.0))
    assert step == pytest.approx(np.average(CHANGES, axis=0, weights=[1, 2, 5]), rel=1e-6)


def test_clients_of_weight_two_count_as_two() -> None:
    twice = combine(CHANGES, np.array([1, 2, 1]), np.array([1.0, 2.0, 3.0]), 3, how(2.0))
    rows = CHANGES[[0, 1, 1, 2]]
    alone = combine(rows, np.array([1] * 4), np.array([1.0, 2.0, 2.0, 3.0]), 3, how(2.0))
    assert twice == pytest.approx(alone, rel=1e-6)


def test_statistics_are_a_mean_and_have_no_part_in_the_norm() -> None:
    losses, weights = np.array([1.0, 3.0, 1.0]), np.array([1, 1, 1])
    wide = np.concatenate([CHANGES, 1e3 * CHANGES[:, :1]], axis=1)
    step_F = combine(wide, weights, losses, 3, how(1.0))
    assert step_F[:3] == pytest.approx(combine(CHANGES, weights, losses, 3, how(1.0)))
    assert step_F[3] == pytest.approx(1e3 * (1 * 1 - 3 * 1 + 1 * 0.5) / 5, rel=1e-6)


@given(st.lists(st.floats(0, 1e9), min_size=3, max_size=3), st.floats(0, 10), st.floats(1e-3, 1e3))
def test_no_loss_makes_a_step_longer_than_the_longest(
    losses: list[float], q: float, lipschitz: float
) -> None:
    step_F = combine(CHANGES, np.array([1, 2, 3]), np.maximum(losses, 1e-10), 3, how(q, lipschitz))
    assert np.isfinite(step_F).all()
    assert np.abs(step_F).max() <= np.abs(CHANGES).max() + 1e-6


def test_losses_go_with_their_clients_in_any_order_of_arrival() -> None:
    losses = {"a": 0.5, "b": 2.0, "c": 1.0, "d": 7.0}

    def step(order: str) -> np.ndarray:
        measures: dict[str, dict[str, float]] = {}
        weights = dict.fromkeys("abcd", 1)
        opening = Opening(3, 3, weights, how(1.0), measures=measures)
        aggregator = AGGREGATORS["q-fedavg"](opening)
        for client in order:
            measures[client] = {"received_loss": losses[client]}
            aggregator.add(client, CHANGES["abc".index(client)])
        return aggregator.finish()

    expected = paper(CHANGES.astype(np.float64), [0.5, 2.0, 1.0], 1.0, 4.0)
    assert step("abc") == pytest.approx(expected, rel=1e-6)  # d does not answer
    assert step("cab").tobytes() == step("abc").tobytes()
    only = paper(CHANGES[1:].astype(np.float64), [2.0, 1.0], 1.0, 4.0)
    assert step("cb") == pytest.approx(only, rel=1e-6)
