"""Who is let in: what a vehicle tells is checked before it takes part."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.experiments import tiny_experiment
from torch import nn

from fleetseg.data.labels import CAMVID_11, LABEL_SPACES
from fleetseg.data.styles import STYLES
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of
from fleetseg.federation.wire import PlainCodec
from fleetseg.fleet.protocol import write_enrolments
from fleetseg.fleet.server.enrolment import Roster, RunSpec

CLASSES = CAMVID_11.num_classes
EXPERIMENT = make_experiment({"training": {"style": {"kind": "lab"}}})
STYLE = np.array([[[50, 1, 2], [20, 5, 5]]], np.float32)


def answers(**facts: Any) -> Roster:
    """What becomes of a good vehicle and of one that tells these facts, which differ."""
    spec: Any = RunSpec("run", EXPERIMENT, None, LABEL_SPACES["camvid11"], None)  # type: ignore[arg-type]
    roster = Roster()
    for site, told in (("car-1", {STYLES: STYLE}), ("car-2", facts)):
        counts = (5, *[0] * 10)
        enrolment = Enrolment(site, 3, 5, counts, facts={k: np.array(v) for k, v in told.items()})
        header = {"enrolments": write_enrolments({site: enrolment})}
        roster.register(site, json.loads(json.dumps(header)), spec)
    return roster


def test_a_style_as_it_should_be() -> None:
    roster = answers(styles=STYLE)
    assert set(roster.enrolled) == {"car-1", "car-2"}
    assert (roster.enrolled["car-2"].facts[STYLES] == STYLE).all()
    assert roster.refused == {}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, "the facts are not those that were asked for"),
        ({"styles": STYLE, "pixels": [1.0]}, "the facts are not those that were asked for"),
        ({"styles": STYLE * 9}, "a style that no image can have: lab"),
        ({"styles": STYLE[0]}, "styles of another shape or number"),
        ({"styles": np.concatenate([STYLE, STYLE])}, "styles of another shape or number"),
        ({"styles": [[["a", "b"]]]}, "not made of numbers"),
        ({"styles": STYLE * np.nan}, "finite"),
    ],
    ids=str,
)
def test_a_poisoned_style_keeps_its_vehicle_out_and_no_other(
    facts: dict[str, Any], said: str
) -> None:
    roster = answers(**facts)
    assert set(roster.enrolled) == {"car-1"}
    assert set(roster.refused) == {"car-2"}
    assert said in roster.refused["car-2"].detail


@pytest.mark.parametrize(("pixels", "is_refused"), [(0, False), (40, True)])
def test_counted_labels_of_an_unlabelled_vehicle_are_refused(
    pixels: int, is_refused: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    experiment = tiny_experiment(
        tmp_path_factory.mktemp("cache"),
        training={"supervision": "self_training"},
        partition={"unlabelled": {"clients": ["car-*"]}},
    )
    exchange = Exchange.of(layout_of(nn.Linear(2, 2)))
    spec = RunSpec("run", experiment, exchange, CAMVID_11, PlainCodec(exchange.up))
    enrolment = Enrolment("car-1", 4, pixels, (pixels, *[0] * (CLASSES - 1)))
    roster = Roster()
    roster.register("car-1", {"enrolments": write_enrolments({"car-1": enrolment})}, spec)
    assert (set(roster.refused) == {"car-1"}) is is_refused
    assert (set(roster.enrolled) == {"car-1"}) is not is_refused


def told_by(site: str, vehicles: dict[str, int], **fleet: Any) -> Roster:
    """What becomes of a kit whose vehicles say that they hold so many images."""
    experiment = make_experiment({"fleet": fleet})
    spec: Any = RunSpec("run", experiment, None, CAMVID_11, None)  # type: ignore[arg-type]
    enrolments = {v: Enrolment(v, n, n, (n, *[0] * 10)) for v, n in vehicles.items()}
    roster = Roster()
    roster.register(site, {"enrolments": write_enrolments(enrolments)}, spec)
    return roster


@pytest.mark.parametrize(
    ("count", "fleet", "said"),
    [
        (10, {}, ""),
        (11, {}, "one kit enrols more vehicles than fleet.max_vehicles; got 11, expected <= 10"),
        (900, {}, "--set fleet.max_vehicles_of.depot=900"),
        (40, {"max_vehicles_of": {"depot": 40}}, ""),
        (41, {"max_vehicles_of": {"depot": 40}}, "than fleet.max_vehicles_of.depot; got 41"),
        (2, {"max_vehicles": 1, "max_vehicles_of": {"other": 40}}, "got 2, expected <= 1"),
    ],
)
def test_the_operator_fixes_the_vehicles_of_a_kit(
    count: int, fleet: dict[str, Any], said: str
) -> None:
    roster = told_by("depot", {f"depot/{k}": 5 for k in range(count)}, **fleet)
    assert len(roster.enrolled) == (0 if said else count)
    assert said in (roster.refused["depot"].detail if said else "")


@pytest.mark.parametrize(
    ("images", "fleet", "said"),
    [
        (100_001, {}, "more images than fleet.max_images allows"),
        (100_001, {"max_images_of": {"depot": 200_000}}, ""),
        (150_000, {"max_images_of": {"depot": 200_000}}, "together enrol with more images than"),
        (30, {"max_images_of": {"depot": 50}}, "fleet.max_images_of.depot; got 60"),
        (30, {"max_images_of": {"other": 50}}, ""),
    ],
)
def test_the_operator_bounds_the_images_of_a_kit(
    images: int, fleet: dict[str, Any], said: str
) -> None:
    few = 1 if images == 100_001 else 2
    roster = told_by("depot", {f"depot/{k}": images for k in range(few)}, **fleet)
    assert len(roster.enrolled) == (0 if said else few)
    assert said in (roster.refused["depot"].detail if said else "")
