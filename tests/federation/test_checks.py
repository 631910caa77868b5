"""What a client says of itself, before anybody counts on it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.errors import UpdateRejected
from fleetseg.federation.checks import MAX_IMAGES, MAX_NAME, check_enrolment, validate_evaluation
from fleetseg.federation.messages import Enrolment, Evaluation

CAR = Enrolment("car-1", 4, 10, (7, 3, 0), "", 5)


def test_an_honest_enrolment_passes() -> None:
    check_enrolment(CAR, 3)
    check_enrolment(replace(CAR, client_id="k" * MAX_NAME, num_images=1, num_test_pixels=0), 3)
    most = MAX_IMAGES * 1000
    check_enrolment(
        replace(CAR, num_images=MAX_IMAGES, num_pixels=most, histogram_C=(most, 0, 0)), 3
    )


def test_who_abstains_may_hold_nothing() -> None:
    check_enrolment(Enrolment("car-1", 0, 0, (0, 0, 0), "no labels"), 3)
    check_enrolment(replace(CAR, abstains="too many bad samples"), 3)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"client_id": ""}, "malformed"),
    ({"client_id": None}, "malformed"),
    ({"client_id": ["car-1"]}, "malformed"),
    ({"client_id": "k" * (MAX_NAME + 1)}, "malformed"),
    ({"abstains": None}, "malformed"),
    ({"abstains": "k" * (MAX_NAME + 1)}, "malformed"),
    ({"num_images": 0}, "count"),
    ({"num_pixels": 0, "histogram_C": (0, 0, 0)}, "count"),
    ({"num_pixels": 11}, "count"),
    ({"num_pixels": 1 << 31, "histogram_C": (1 << 31, 0, 0)}, "count"),  # of four images
    ({"histogram_C": (10, 3, -3)}, "count"),
    ({"histogram_C": (10, 0.0, 0)}, "count"),
    ({"histogram_C": (10, "", 0)}, "count"),
    ({"histogram_C": (7, 3)}, "labels"),
    ({"histogram_C": ()}, "labels"),
    ({"histogram_C": (7, 3, 0, 0)}, "labels"),
    *(
        ({name: value}, "count")
        for name in ("num_images", "num_pixels", "num_test_pixels")
        for value in (-1, (1 << 53) - 1, 1 << 53, True, 1.0, math.nan, "1", None, [1])
    ),
]


@pytest.mark.parametrize(("changes", "reason"), BAD, ids=[str(changes)[:40] for changes, _ in BAD])
def test_a_bad_enrolment_is_refused_for_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UpdateRejected) as caught:
        check_enrolment(replace(CAR, **changes), 3)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 500


def test_nobody_enrols_with_more_images_than_the_operator_allows() -> None:
    """Weights of the whole fleet come of it: 2**53 of one would round all others to nothing."""
    check_enrolment(replace(CAR, num_images=100), 3, max_images=100)
    with pytest.raises(UpdateRejected, match=r"fleet\.max_images.*got 101"):
        check_enrolment(replace(CAR, num_images=101), 3, max_images=100)


@given(st.lists(st.integers(0, 2**26), min_size=3, max_size=3), st.integers(-3, 3))
def test_class_counts_must_add_up(histogram: list[int], off: int) -> None:
    enrolment = Enrolment("car-1", 1, sum(histogram) + off, tuple(histogram))
    try:
        check_enrolment(enrolment, 3)
    except UpdateRejected:
        assert off != 0 or sum(histogram) == 0
    else:
        assert off == 0


@pytest.mark.parametrize("num_classes", [2, 33, 40, 64])
def test_a_sum_of_scores_does_not_wrap_around(num_classes: int) -> None:
    most = (1 << 53) - 1
    conf_CC = np.full((num_classes, num_classes), most, dtype=np.int64)
    with pytest.raises(UpdateRejected, match="more pixels scored than enrolled"):
        validate_evaluation(
            Evaluation(1, "car-1", {"day": conf_CC}),
            round_=1,
            num_classes=num_classes,
            max_pixels=most,
        )
