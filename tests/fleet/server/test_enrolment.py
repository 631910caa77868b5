"""Who is let in: what a vehicle tells of its style is checked before it takes part."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fleetseg.data.labels import LABEL_SPACES
from fleetseg.data.styles import STYLES
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.messages import Enrolment
from fleetseg.fleet.protocol import write_enrolments
from fleetseg.fleet.server.enrolment import Roster, RunSpec

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
        ({}, "other facts than were asked for"),
        ({"styles": STYLE, "pixels": [1.0]}, "other facts than were asked for"),
        ({"styles": STYLE * 9}, "a style that no image has: lab"),
        ({"styles": STYLE[0]}, "other styles"),
        ({"styles": np.concatenate([STYLE, STYLE])}, "other styles"),
        ({"styles": [[["a", "b"]]]}, "not of numbers"),
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
