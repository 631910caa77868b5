"""Weights by rarity: every class of the fleet counts the same, and its pixels share its vote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.config import FederationConfig
from fleetseg.federation.class_rarity import CLASS_COUNTS, class_counts, class_rarity
from fleetseg.federation.known import Known
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.weights import RESOLUTION, WEIGHTS


def known(counts: dict[str, tuple[int, ...]], asked: str = "") -> Known:
    fleet = {c: Enrolment(c, 1, sum(h), h) for c, h in sorted(counts.items())}
    enrolled = {c: e for c, e in fleet.items() if not asked or c in asked}
    return Known(enrolled, 1, FederationConfig(), {CLASS_COUNTS: class_counts(fleet)})


def test_by_hand() -> None:
    # Of class 0, a has 3/4 and b 1/4; of class 1, b has all; nobody has class 2.
    fleet = {"a": (300, 0, 0), "b": (100, 10, 0)}
    assert class_rarity(known(fleet)) == pytest.approx({"a": 0.75, "b": 1.25})
    assert WEIGHTS["inverse class frequency"].weigh(known(fleet)) == {
        "a": round(0.6 * RESOLUTION),
        "b": RESOLUTION,
    }


def test_a_cohort_is_weighed_by_the_classes_of_the_whole_fleet() -> None:
    fleet = {"a": (300, 0), "b": (100, 10), "c": (0, 30)}
    assert class_rarity(known(fleet, "ab")) == pytest.approx({"a": 0.75, "b": 0.5})


def test_who_comes_late_with_a_class_of_its_own_counts_for_the_others() -> None:
    facts = known({"a": (10, 0)}).facts
    late = {"z": Enrolment("z", 1, 60, (10, 50))}
    assert class_rarity(Known(late, 9, FederationConfig(), facts)) == pytest.approx({"z": 1.0})
    lone = {"z": Enrolment("z", 1, 50, (0, 50))}
    weights = WEIGHTS["inverse class frequency"].weigh(Known(lone, 9, FederationConfig(), facts))
    assert weights == {"z": 1}


COUNTS = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(0, 10), st.integers(0, 1)), min_size=1, max_size=6
)


@given(COUNTS)
def test_the_weights_of_a_fleet_add_up_to_its_classes(rows: list[tuple[int, ...]]) -> None:
    fleet = {f"car-{k}": row for k, row in enumerate(rows)}
    rarity = class_rarity(known(fleet))
    present = int((np.array(rows).sum(axis=0) > 0).sum())
    assert sum(rarity.values()) == pytest.approx(present, abs=1e-5)
    assert max(rarity.values()) <= present + 1e-5
