"""What a policy says to counts: each kind of check, held, fallen, unsure and not judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fleetseg.data.labels import LabelSpace
from fleetseg.judging.counts import ONE, Measured, Row, Rows
from fleetseg.judging.policy import make_policy
from fleetseg.release.bootstrap import Difference
from fleetseg.release.judge import (
    Check,
    Sides,
    enough_vehicles,
    judge,
    refuses,
    verdict_of,
)

SPACE = LabelSpace("two", ("road", "person"), ((0, 0, 0), (255, 0, 0)), ("person",))
RIGHT = [[90, 0], [0, 10]]
BLIND = [[90, 0], [5, 5]]  # half of the person is road


def measured(confs: list[Any], drives: int = 0, sum_of_confidence: int = 0) -> Measured:
    rows = tuple(
        Row(f"frame-{k}", ("day", "night")[k % 2], f"drive-{k % drives}" if drives else "")
        for k in range(len(confs))
    )
    clean = Rows(rows, np.array(confs, dtype=np.int64))
    bins = np.array([[100], [100], [100 * ONE - sum_of_confidence * ONE]])
    return Measured(clean, bins, {("fog", severity): clean for severity in (1, 2, 3)})


def checks(now: Measured | None, new: Measured, **sections: Any) -> dict[tuple[str, str], Check]:
    fields = {"robustness": {"kinds": ["fog"]}, **sections}
    latency_ms = (10.0,) if now is None else (10.0, 10.0)
    found = judge(Sides(SPACE, new, now, latency_ms), make_policy(fields))
    return {(check.kind, check.name): check for check in found}


GOOD = measured([RIGHT] * 8)


def test_the_same_counts_hold_everywhere() -> None:
    found = checks(GOOD, GOOD)
    assert list(found) == [
        ("overall", "all frames"), ("class", "person"), ("domain", "day"), ("domain", "night"),
        ("robustness", "fog"), ("calibration", "ECE"), ("latency", "ms per image"),
    ]  # fmt: skip
    assert {check.verdict for check in found.values()} == {"held"}
    assert found["class", "person"].reason == (
        "IoU of person from 1.000 to 1.000 (+0.000; 95%: +0.000 to +0.000, 8 images); "
        "a fall of 0.02 is allowed"
    )


def test_a_fall_at_night_is_found_where_it_is() -> None:
    found = checks(GOOD, measured([RIGHT, BLIND] * 4))
    verdicts = {name: check.verdict for (_, name), check in found.items()}
    assert verdicts["person"] == verdicts["night"] == verdicts["all frames"] == "fallen"
    assert verdicts["day"] == "held"
    assert found["domain", "night"].candidate == pytest.approx((90 / 95 + 5 / 10) / 2)
    assert found["domain", "night"].drawn == "4 images"


def test_a_policy_that_allows_it_lets_it_pass() -> None:
    allowed = {"scores": {"critical_max_fall": 0.3, "domain_max_fall": 0.3}}
    found = checks(GOOD, measured([RIGHT, BLIND] * 4), **allowed)
    assert found["domain", "night"].verdict == "held"
    # 0.25 on average, but a resample may have none but nights.
    assert found["class", "person"].verdict == "unsure"


def test_without_a_current_model_only_the_least_counts() -> None:
    assert list(checks(None, GOOD)) == []
    least = {"least_miou": 0.9, "least_critical_iou": 0.6}
    found = checks(None, measured([BLIND] * 3), scores=least, latency={"max_ms": 9})
    assert {key: check.verdict for key, check in found.items()} == {
        ("least", "mIoU"): "fallen",
        ("least", "person"): "fallen",
        ("latency", "ms per image at most"): "fallen",
    }
    assert found["least", "person"].reason == ("IoU of person 0.500; the minimum is 0.6")


def test_calibration_and_latency() -> None:
    poor = measured([RIGHT] * 8, sum_of_confidence=2)  # 98 of 100 said, 100 right
    assert checks(GOOD, poor)["calibration", "ECE"].verdict == "fallen"
    assert checks(GOOD, poor)["calibration", "ECE"].candidate == pytest.approx(0.02)
    assert checks(poor, GOOD)["calibration", "ECE"].verdict == "held"
    sides = Sides(SPACE, GOOD, GOOD, (12.5, 10.0))
    for ratio, verdict in ((1.2, "fallen"), (1.3, "held")):
        *_, last = judge(sides, make_policy({"latency": {"max_ratio": ratio}, "robustness":
                                             {"kinds": []}}))  # fmt: skip
        assert (last.name, last.verdict) == ("ms per image", verdict)
    assert last.reason == "from 10.0 to 12.5 ms per image, 1.25 times; at most 1.3 times is allowed"


@pytest.mark.parametrize(
    ("drives", "by", "drawn"),
    [
        (0, "drive", "8 images"),  # not known
        (4, "auto", "8 images"),  # too few to mean anything
        (4, "drive", "4 drives"),
        (8, "image", "8 images"),
    ],
)
def test_what_is_drawn(drives: int, by: str, drawn: str) -> None:
    both = measured([RIGHT] * 8, drives)
    assert checks(both, both, bootstrap={"by": by})["class", "person"].drawn == drawn
    enough = {"by": "auto", "least_drives": 4}
    assert checks(GOOD, GOOD, bootstrap=enough)["class", "person"].drawn == "8 images"
    known = measured([RIGHT] * 8, 4)
    assert checks(known, known, bootstrap=enough)["class", "person"].drawn == "4 drives"


def test_vehicles_are_drawn_where_they_judge() -> None:
    sides = replace(Sides(SPACE, GOOD, GOOD, (1.0, 1.0)), unit="vehicle")
    found = judge(sides, make_policy({"robustness": {"kinds": []}}))
    assert found[1].drawn == "8 vehicles"


def test_a_class_that_nobody_sees_is_not_judged() -> None:
    empty = measured([[[90, 0], [0, 0]]] * 4)
    check = checks(empty, empty)["class", "person"]
    assert (check.verdict, check.reason) == (
        "not judged", "IoU of person: no such pixel in the truth",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "low", "high", "verdict"),
    [
        (-0.05, -0.08, -0.01, "fallen"),
        (-0.05, -0.12, 0.01, "unsure"),  # may be noise
        (-0.01, -0.05, 0.03, "unsure"),  # may be more than is allowed
        (-0.01, -0.015, -0.005, "held"),  # a fall for sure, and allowed
        (0.05, 0.02, 0.08, "held"),
        (-0.05, None, None, "fallen"),
        (0.00, None, None, "unsure"),
    ],
)
def test_what_an_interval_shows(
    change: float, low: float | None, high: float | None, verdict: str
) -> None:
    assert verdict_of(Difference(0.5, 0.5 + change, low, high, 9), allowed=0.02) == verdict
    check = Check("class", "person", verdict, "")  # type: ignore[arg-type]
    for when_unsure, refused in (("promote", {"fallen"}), ("refuse", {"fallen", "unsure"})):
        policy = make_policy({"bootstrap": {"when_unsure": when_unsure}})
        assert refuses(check, policy) == (verdict in refused)


@pytest.mark.parametrize(
    ("judged", "asked", "least", "verdict"),
    [(1, 1, 1, "held"), (2, 4, 1, "held"), (1, 3, 1, "fallen"), (2, 3, 3, "fallen"),
     (3, 3, 3, "held")],
)  # fmt: skip
def test_few_vehicles_do_not_decide_for_all(
    judged: int, asked: int, least: int, verdict: str
) -> None:
    policy = make_policy({"vehicles": {"least": least}})
    check = enough_vehicles(judged, asked, policy)
    assert check.verdict == verdict
    assert refuses(check, policy) == (verdict == "fallen")
    assert check.reason.startswith(f"{judged} of {asked} vehicles judged; at least {least} must")
