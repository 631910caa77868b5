"""Sentences on weak spots: each is said where the scores show it, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tests.records import PROTOCOL

from fleetseg.data.labels import LabelSpace
from fleetseg.evaluation.protocol import ScoredSet
from fleetseg.evaluation.scored import Scored
from fleetseg.runs.weak_spots import weak_spots

SPACE = LabelSpace(
    "three", ("road", "car", "pole"), ((1, 1, 1), (2, 2, 2), (3, 3, 3)), ("car", "pole")
)


def conf(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, np.int64)


PERFECT = conf((90, 0, 0), (0, 50, 0), (0, 0, 10))


def of(domains: Mapping[str, np.ndarray], **fields: object) -> list[str]:
    return weak_spots(Scored(SPACE, domains, ("test",), **fields))  # type: ignore[arg-type]


def test_nothing_is_said_of_a_model_without_faults() -> None:
    assert of({"day": PERFECT, "night": PERFECT}) == []


def test_a_model_without_scores_says_so() -> None:
    assert weak_spots(None) == weak_spots(Scored(SPACE))
    assert weak_spots(None) == ["Its quality is not known: it was not scored."]


def test_missed_classes_are_named_with_what_is_found_critical_ones_first() -> None:
    missing = conf((40, 50, 0), (0, 50, 0), (9, 0, 1))
    assert of({"day": missing}) == [
        "It misses more than half of the pixels of these safety-critical classes; what it finds: "
        "pole (10 %).",
        "It misses more than half of the pixels of these classes; what it finds: road (44 %).",
    ]
    # Half found is not more than half missed.
    assert of({"day": conf((90, 0, 0), (0, 50, 0), (5, 0, 5))}) == []


def test_a_class_that_no_image_shows_is_not_called_missed_but_unknown() -> None:
    assert of({"day": conf((90, 0, 0), (0, 50, 0), (0, 0, 0))}) == [
        "How well it finds pole is not known: no scored image shows any."
    ]
    predicted = conf((80, 0, 10), (0, 50, 0), (0, 0, 0))
    assert of({"day": predicted})[-1].startswith("How well it finds pole is not known")


def test_the_worst_domain_and_vehicle_are_named_where_they_lag() -> None:
    night = conf((60, 30, 0), (10, 40, 0), (0, 0, 10))
    (spot,) = of({"day": PERFECT, "night": night})
    assert spot.startswith("Its worst domain is night: mIoU 0.7")
    assert "the best has 1.000" in spot
    (spot,) = of({"day": PERFECT}, conf_by_client={"a": PERFECT, "b": night})
    assert spot.startswith("Its worst vehicle is b: mIoU 0.7")
    slightly = conf((89, 1, 0), (0, 50, 0), (0, 0, 10))
    assert of({"day": PERFECT, "night": slightly}) == []


def test_unseen_domains_are_called_worse_only_where_they_are() -> None:
    night = conf((60, 30, 0), (10, 40, 0), (0, 0, 10))
    domains = {"day": PERFECT, "night": night}
    assert of(domains, seen_domains=frozenset({"day"}))[0].startswith(
        "It is worse on domains that it was not trained on: mIoU 0.7"
    )
    others = of(domains, seen_domains=frozenset({"night"}))
    assert [spot for spot in others if "not trained" in spot] == []


def test_what_scores_rest_on_is_said() -> None:
    few = replace(PROTOCOL, sets=(ScoredSet("val", 12, ""),), seen=("day",), unseen=())
    assert of({"day": PERFECT}, protocol=few) == [
        "Its scores are of 12 images only.",
        "It was trained on all domains that it was scored on: on other roads it may be worse.",
    ]
    many = replace(few, sets=(ScoredSet("val", 500, ""),), unseen=("night",))
    assert of({"day": PERFECT}, protocol=many) == []
    unknown = replace(few, sets=(ScoredSet("val", None, ""),), seen=None, unseen=None)
    assert of({"day": PERFECT}, protocol=unknown) == []
