"""Weights: integers of real ones, and what a weighting remembers between rounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import FederationConfig
from fleetseg.federation.claims import Claims
from fleetseg.federation.known import Known
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.weights import RESOLUTION, as_integers, weights_of

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


def test_weights_that_come_of_what_clients_tell_are_bounded_and_counts_were_before() -> None:
    cars = {name: Enrolment(name, images, 1, (1,)) for name, images in (("a", 99), ("b", 1))}
    enrolled, memory = cars | {"c": Enrolment("c", 1, 1, (1,))}, {"share": {"a": 100.0}}
    for weights, expected in (("feddg-ga", [5, 1, 1]), ("images", [99, 1, 1])):
        known = Known(enrolled, 1, FederationConfig(weights=weights), {}, memory)
        made = weights_of(known, Claims(5).bounded)
        assert [weight / made["b"] for weight in made.values()] == expected
