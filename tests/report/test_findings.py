"""Headings say nothing that the figures do not: each rule, and its dull fallback."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.run_folders import run_folder

from fleetseg.report import findings, lists
from fleetseg.report.figures import (
    ClassFigures,
    ConfusionFigures,
    DomainFigures,
    FrameFigures,
    MixFigures,
    ReportFigures,
    RoundFigures,
    VehicleFigures,
)
from fleetseg.report.gather import gather
from fleetseg.report.views import TOPICS

CLASSES = ("road", "car", "pole")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ReportFigures:
    """A run of two vehicles, mIoU 0.4 and then 0.5, with nothing beside it."""
    path = run_folder(tmp_path_factory.mktemp("runs") / "one", [0.4, 0.5])
    return gather([path]).figures


def beside(figures: ReportFigures, miou: float | None, images: int | None = None) -> ReportFigures:
    """Put a centralised run of that mIoU beside the run."""
    images = figures.run.images if images is None else images
    pooled = replace(figures.run, kind="centralised", miou=miou, images=images)
    return replace(figures, centralised=pooled)


def alone(figures: ReportFigures, *mious: float) -> ReportFigures:
    """Put vehicles alone beside the run."""
    runs = [replace(figures.run, kind="alone", name=f"v{k}", miou=m) for k, m in enumerate(mious)]
    return replace(figures, alone=tuple(runs))


def row(name: str, iou: float | None, **more: Any) -> ClassFigures:
    fields = {"critical": False, "share": 0.1, "centralised": None, "alone": None, "history": ()}
    return ClassFigures(name=name, iou=iou, **{**fields, **more})


@pytest.mark.parametrize(
    ("pooled", "images", "said"),
    [
        (0.55, None, "reach 90\u202f% of what pooling would give"),  # 0.909: never rounded up
        (0.503, None, "level with pooling"),
        (0.4, None, "10 points above pooling"),
        (0.55, 1000, "mIoU 0.500"),  # not at equal images: no comparison in the headline
        (None, None, "mIoU 0.500"),
    ],
)
def test_the_headline_compares_only_at_equal_images(
    plain: ReportFigures, pooled: float | None, images: int | None, said: str
) -> None:
    headline = findings.headline(beside(plain, pooled, images))
    assert said in headline
    assert headline.startswith("Two vehicles trained one model together")


def test_the_headline_of_a_run_that_is_not_over_or_not_scored(plain: ReportFigures) -> None:
    assert (
        findings.headline(replace(plain, reason="")) == "Two vehicles, round 2 of 10: not finished"
    )
    unscored = replace(plain, run=replace(plain.run, miou=None))
    assert findings.headline(unscored).endswith("; nothing was scored")
    assert findings.verdict(unscored).startswith("The model was not scored, so nothing")
    assert {item.section for item in lists.good(unscored)} == {"fleet", "left"}


def test_a_baseline_is_not_called_a_fleet(plain: ReportFigures) -> None:
    pooled = replace(plain, run=replace(plain.run, kind="centralised"))
    assert findings.headline(pooled) == "All pictures in one place: mIoU 0.500"


def test_what_federating_costs(plain: ReportFigures) -> None:
    assert "costs nothing here" in findings.verdict(beside(plain, 0.5))
    assert "costs little here: 2.0 points" in findings.verdict(beside(plain, 0.52))
    assert "costs a lot here: 20 points" in findings.verdict(beside(plain, 0.7))
    assert "costs" not in findings.verdict(beside(plain, 0.7, images=1))


def test_against(plain: ReportFigures) -> None:
    assert findings.against(plain) == "Nothing to compare with yet"
    assert findings.against(beside(plain, 0.527)) == "Centralised is 2.7 points ahead"
    assert findings.against(beside(plain, 0.504)) == "Centralised is level"
    both = alone(beside(plain, 0.45), 0.2, 0.3)
    assert findings.against(both) == (
        "Centralised is 5.0 points behind; alone, the mean vehicle is 25 points behind"
    )
    assert findings.against(alone(plain, 0.6)) == "Alone, the one vehicle is 10 points ahead"


def test_a_best_vehicle_that_is_as_good_is_told(plain: ReportFigures) -> None:
    (told,) = [item for item in lists.good(alone(plain, 0.2, 0.6)) if item.section == "against"]
    assert told.after == " (0.400), but not above the best of two (0.600)."
    assert not [item for item in lists.good(alone(plain, 0.6, 0.7)) if item.section == "against"]


def test_classes_that_lose_and_gain() -> None:
    rows = [
        row("fence", 0.5, centralised=0.6),
        row("road", 0.9, centralised=0.9),
        row("car", 0.6, centralised=0.5),
    ]
    assert findings.per_class(rows) == "Fence loses most to centralised; car gains"
    few = [row("fence", 0.1, centralised=0.9, share=0.0001), *rows[1:2]]
    assert findings.per_class(few) == "No class is more than two points from centralised"


def test_classes_without_a_comparison() -> None:
    assert findings.per_class([row("pole", 0.1), row("car", 0.8)]) == "Pole is all but missed"
    assert findings.per_class([row("pole", 0.4), row("car", 0.8)]) == "Pole is lowest, at 0.400"
    assert findings.per_class([row("pole", None)]) == "No class was scored"
    assert findings.per_class([]) == "No class was scored"


def rounds(*mious: float | None) -> list[RoundFigures]:
    return [
        RoundFigures(n, 2, 2, {}, 0.5, miou, None, 1.0, None, 1.0, 1.0)
        for n, miou in enumerate(mious, 1)
    ]


@pytest.mark.parametrize(
    ("mious", "said"),
    [
        ((0.1, 0.2, 0.3, 0.4, 0.5), "Still rising at the end: +10.0 points in the last round"),
        ((0.5, 0.5, 0.5, 0.5), "Level at the end"),
        ((0.5, 0.6, 0.5, 0.5, 0.5), "Level at the end, 10 points below its best in round 2"),
        ((0.5, 0.6, 0.7, 0.6, 0.5), "Falling at the end: −10.0 points in the last round"),
        ((None, None, 0.5), "Three rounds; scored too rarely to show a trend"),
        ((None, None), "Two rounds, never scored"),
    ],
)
def test_the_trend_is_of_the_last_quarter(mious: tuple[float | None, ...], said: str) -> None:
    assert findings.progress(rounds(*mious)) == said


def vehicle(name: str, *ious: float, share: tuple[float, ...] = (0.5, 0.4, 0.1)) -> VehicleFigures:
    return VehicleFigures(name, sum(ious) / 3, None, ious, share, None)


def test_a_vehicle_that_is_last_for_a_class_it_hardly_holds() -> None:
    rare = vehicle("a", 0.9, 0.8, 0.0, share=(0.6, 0.3999, 0.0001))
    other = vehicle("b", 0.7, 0.7, 0.7)
    said = findings.vehicles([rare, other], CLASSES)
    assert said == "a is last only because of pole, which it hardly holds: 0.850 without"
    worse = vehicle("a", 0.5, 0.4, 0.0, share=(0.6, 0.3999, 0.0001))
    assert findings.vehicles([worse, other], CLASSES).startswith("a scores lowest: 0.300, 40")


def test_vehicles_that_are_served_alike_or_not_scored() -> None:
    alike = [vehicle(name, 0.5, 0.5, 0.5) for name in "ab"]
    assert (
        findings.vehicles(alike, CLASSES) == "All vehicles score within half a point of each other"
    )
    assert findings.vehicles([], CLASSES) == "Vehicles were not scored individually"


def test_the_least_alike_vehicle() -> None:
    fleet = (0.5, 0.3, 0.2)
    odd = MixFigures("a", 5, 0.4, (0.2, 0.8, 0.0), (-1.3, 1.4, None))
    said = findings.mix([odd], CLASSES, fleet)
    assert said == "a is least like the fleet: hardly any pole, 3 times the fleet’s share of car"
    near = replace(odd, distance=0.05)
    assert findings.mix([near], CLASSES, fleet) == "The vehicles hold much the same classes"
    assert findings.mix([], CLASSES, fleet) == "Which classes the vehicles hold is not known"


def test_failures_are_counted_in_the_heading(plain: ReportFigures) -> None:
    assert findings.attendance(plain) == "Every request was answered"
    trouble = replace(plain.rounds[0], asked=4, answered=1, failed={"late": 2, "lost": 1})
    figures = replace(plain, rounds=(trouble, *plain.rounds[1:]))
    said = findings.attendance(figures)
    assert said == "Of six requests, three gave no usable answer: two late and one lost"
    assert "Every request was answered" not in [item.link for item in lists.good(figures)]
    assert "three requests" in [item.link for item in lists.not_good(figures)]


def domain(name: str, seen: bool | None, miou: float | None) -> DomainFigures:
    return DomainFigures(name, seen, miou, None, None)


def test_domains_that_nobody_trained_on() -> None:
    day, night = domain("day", True, 0.6), domain("night", False, 0.2)
    assert findings.domains([day, night]) == (
        "From 0.600 where vehicles trained to 0.200 in night, where none did"
    )
    level = domain("night", False, 0.6)
    said = "Domains that no vehicle trained on score as well as the rest"
    assert findings.domains([day, level]) == said
    assert findings.domains([day]) == "One domain only, day, which vehicles trained on"
    unknown = [domain("day", None, 0.6), domain("night", None, 0.2)]
    assert findings.domains(unknown) == "night is lowest at 0.200"
    assert findings.domains([]) == "No domain was scored"


def test_what_the_least_found_class_is_taken_for() -> None:
    figures = ConfusionFigures(
        ("pole", "road", "car"),
        ((0.18, 0.5, 0.32), (0, 1, 0), (0, 0, 1)),
        (None, 1.0, 1.0),
    )
    said = "Pole is taken for road (50\u202f%) and car (32\u202f%)"
    assert findings.confusion(figures) == said
    right = replace(figures, share_CC=((0.96, 0.02, 0.02), (0, 1, 0), (0, 0, 1)))
    found = "Pole has the lowest recall: 96\u202f% of its pixels are found"
    assert findings.confusion(right) == found
    assert findings.confusion(None) == "Nothing was scored"


def test_pictures_name_a_mistake_only_where_most_frames_share_it() -> None:
    def frame(wrong: float, *first: str) -> FrameFigures:
        mistakes = ((first[0], first[1], 0.5),) if first else ()
        return FrameFigures("f", "day", 4, 4, "", "", "", "", wrong, mistakes, "", ())

    same = [frame(0.1, "car", "road"), frame(0.3, "car", "road"), frame(0.2)]
    said = "From 10.0\u202f% to 30.0\u202f% of pixels wrong"
    assert findings.pictures(same) == f"{said}; mostly car taken for road"
    assert findings.pictures([same[0], frame(0.3, "road", "car")]) == said
    assert findings.pictures([]) == "No predictions were kept"


def test_what_flatters_the_headline_stands_beside_it(plain: ReportFigures) -> None:
    seen = replace(plain, domains=(domain("day", True, 0.5),))
    assert "every domain that was scored" in [item.link for item in lists.not_good(seen)]
    unseen = replace(plain, domains=(domain("night", False, 0.5),))
    assert "every domain that was scored" not in [item.link for item in lists.not_good(unseen)]
    assert "two frames" in [item.link for item in lists.not_good(plain)]
    many = replace(plain, scored_frames=500)
    assert "Few frames" not in " ".join(item.before for item in lists.not_good(many))


def test_every_item_leads_to_a_section(plain: ReportFigures) -> None:
    figures = alone(beside(plain, 0.6), 0.2)
    items = [*lists.good(figures), *lists.not_good(figures)]
    assert items
    assert {item.section for item in items} <= set(TOPICS)
