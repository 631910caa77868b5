"""What clients count for: their own word, up to so many times the median."""

from __future__ import annotations

import numpy as np
import pytest

from fleetseg.config import Experiment, TrainingConfig
from fleetseg.federation.claims import Claims, cut_to
from fleetseg.federation.fleet_facts import CLASS_WEIGHTS, facts_of_fleet
from fleetseg.federation.messages import Enrolment


def car(name: str, images: int, *histogram_C: int) -> Enrolment:
    return Enrolment(name, images, sum(histogram_C), histogram_C)


def cars(*cars: Enrolment) -> dict[str, Enrolment]:
    return {each.client_id: each for each in cars}


HONEST = cars(car("a", 100, 900, 100), car("b", 120, 1000, 200), car("c", 300, 2000, 1000))
LIAR = car("liar", 1 << 40, 0, 1 << 50)


def test_nobody_is_cut_within_the_bound() -> None:
    believed = Claims(5).believed(HONEST)
    assert believed == HONEST
    assert cut_to(HONEST, believed) == {}


def test_who_claims_far_more_counts_for_the_bound_and_is_named_once() -> None:
    told: list[str] = []
    claims, enrolled = Claims(5, tell=told.append), HONEST | cars(LIAR)
    for _ in range(3):
        believed = claims.believed(enrolled)
    assert list(believed) == list(enrolled)
    assert {c: believed[c] for c in HONEST} == HONEST
    # Of the lower two in the middle: 120 images, 1,200 pixels.
    assert believed["liar"].num_images == 600
    assert believed["liar"].histogram_C == (0, 6000)
    assert believed["liar"].num_pixels == 6000
    assert cut_to(enrolled, believed) == {"liar": 600}
    assert len(told) == 1
    assert "liar claims 1,099,511,627,776 images" in told[0]
    assert "counts as 600" in told[0]
    assert "fleet.max_times_median" in told[0]


def test_of_two_the_larger_one_is_bounded_by_the_smaller() -> None:
    enrolled = cars(car("a", 10, 50, 50), LIAR)
    assert Claims(5).believed(enrolled)["liar"].num_images == 50


@pytest.mark.parametrize(
    ("claims", "images"),
    [
        (Claims(), 1 << 40),
        (Claims(0), 1 << 40),
        (Claims(5, {"depot"}), 1 << 40),
        (Claims(5, {"depo"}), 600),
    ],
)
def test_who_is_believed_all_the_same(claims: Claims, images: int) -> None:
    depot = car("depot/car-1", 1 << 40, 0, 1 << 50)
    assert claims.believed(HONEST | cars(depot))["depot/car-1"].num_images == images


def test_clients_without_labels_are_bounded_by_their_images() -> None:
    unlabelled = cars(*(car(name, 100, 0, 0) for name in "abc"), car("d", 10**6, 0, 0))
    assert Claims(5).believed(unlabelled)["d"] == car("d", 500, 0, 0)
    assert Claims(5).believed({}) == {}


def test_one_false_histogram_does_not_set_the_class_weights_of_all() -> None:
    experiment = Experiment(training=TrainingConfig(class_weights="fleet"))
    fleet = cars(*(car(f"car-{k}", 100, 9000, 900, 100) for k in range(20)))
    liar = car("liar", 100, 0, 0, 1 << 50)
    honest = facts_of_fleet(experiment, fleet)[CLASS_WEIGHTS]
    fooled = facts_of_fleet(experiment, fleet | cars(liar))[CLASS_WEIGHTS]
    bounded = facts_of_fleet(experiment, Claims(5).believed(fleet | cars(liar)))[CLASS_WEIGHTS]
    assert honest[2] > 4 * honest[0]
    assert fooled[2] < 0.2 * fooled[0]
    assert bounded[2] > 1.5 * bounded[0]
    assert np.argsort(bounded)[0] == 0
