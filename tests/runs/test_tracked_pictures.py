"""Pictures for trackers show the server's frames only, and the model that is scored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.experiments import tiny_experiment
from tests.records import record, scored

from fleetseg.clients import HELD_OUT, FleetData, open_fleet_data
from fleetseg.evaluation.pictures import contact_sheet
from fleetseg.evaluation.predict import predict
from fleetseg.federation.rounds import Watcher
from fleetseg.federation.tensors import read_state
from fleetseg.runs.setup import RunSetup, set_up
from fleetseg.runs.tracked_pictures import NOT_SCORED_SO, picture_of


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> RunSetup:
    experiment = tiny_experiment(
        tmp_path_factory.mktemp("cache"),
        data={
            "sources": [{"conditions": ["day"], "cities": ["amber"], "frames_per_drive": 2}],
            "evaluation": [{"conditions": ["day"], "frames_per_drive": 1, "split": "val"}],
        },
        tracking={"to": ["tensorboard"], "frames": 2, "picture_every": 2},
        engine={"kind": "inprocess", "device": "cpu", "precision": "fp32"},
    )
    out = tmp_path_factory.mktemp("run")
    return set_up(experiment, open_fleet_data(experiment), out, None, Watcher())


def pictures(setup: RunSetup, data: FleetData | None = None, **changes: Any) -> Any:
    runtime = setup.runtime
    if changes:
        sections = {
            name: getattr(setup.experiment, name).model_copy(update=fields)
            for name, fields in changes.items()
        }
        runtime = replace(runtime, experiment=setup.experiment.model_copy(update=sections))
    model = read_state(setup.runtime.model, setup.runtime.exchange.model)
    return picture_of(data or setup.fleet_data, runtime, lambda: model)


def test_a_picture_shows_frames_their_truth_and_what_the_model_makes_of_them(
    setup: RunSetup,
) -> None:
    draw, notes = pictures(setup)
    assert notes == []
    shown_HWC = draw(record(2, scored=scored(0.5)))
    (part,) = setup.fleet_data.evaluation
    rows, names = [], []
    for number in (len(part.scored) // 4, 3 * len(part.scored) // 4):
        image_HWC, label_HW = part.scored.pairs[number]
        seen_HW = predict(setup.runtime.model, image_HWC[None], label_HW.shape)[0]
        rows.append((image_HWC, label_HW, {"round 2": seen_HW}))
        names.append(part.scored.pairs.samples[number].id)
    expected = contact_sheet(rows, names, setup.fleet_data.space)
    assert np.array_equal(shown_HWC, np.asarray(expected))


def test_pictures_come_with_scored_rounds_at_their_distance_and_with_the_last(
    setup: RunSetup,
) -> None:
    draw, _ = pictures(setup)
    drawn = {n for n in (1, 2, 3) if draw(record(n, scored=scored(0.5))) is not None}
    assert drawn == {2, 3}  # of three rounds
    assert draw(record(2)) is None


def test_frames_of_vehicles_are_never_shown(setup: RunSetup) -> None:
    (part,) = setup.fleet_data.evaluation
    held_out = replace(setup.fleet_data, evaluation=(replace(part, name=HELD_OUT),))
    for data in (held_out, replace(setup.fleet_data, evaluation=())):
        draw, notes = pictures(setup, data)
        assert draw(record(2, scored=scored(0.5))) is None
        assert notes == []


def test_no_picture_shows_another_model_than_the_one_that_is_scored(setup: RunSetup) -> None:
    draw, notes = pictures(setup, evaluation={"norms": "domain"})
    assert draw(record(2, scored=scored(0.5))) is None
    assert notes == [NOT_SCORED_SO]
