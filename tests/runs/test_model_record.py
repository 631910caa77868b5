"""What a run tells of its model: plain values, true of the run, without a path of its machine."""

from __future__ import annotations

import json
from pathlib import Path

from tests.records import PROTOCOL, record, scored
from tests.run_folders import run_folder, with_protocol

from fleetseg.experiment_file import make_experiment
from fleetseg.federation.fleet_facts import FLEET_FACTS
from fleetseg.runs.model_record import CENTRALISED, model_record, record_of_run
from fleetseg.runs.report import read_run

ROUNDS = [record(1), record(2)]
IMAGES = {"car-1": 12, "car-2": 30}


def told(**fields: object) -> dict[str, object]:
    experiment = make_experiment({"name": "one", **fields})
    return model_record(experiment, ROUNDS, with_protocol(scored(0.5)), 2, IMAGES)


def test_scores_come_with_their_protocol_and_without_the_matrix() -> None:
    record_ = told()
    assert record_["scores"]["miou"] == scored(0.5).miou  # type: ignore[index]
    assert "confusion" not in json.dumps(record_)
    assert record_["protocol"] == PROTOCOL.to_dict()
    assert record_["scored_round"] == 2


def test_training_and_data_are_summed_up_without_paths() -> None:
    data = {"sources": [{"kind": "camvid", "root": "/home/me/camvid", "sequences": ["0001TP"]}]}
    record_ = told(data=data, federation={"server_optimiser": "fedadam"})
    assert record_["data"] == [
        "trained on camvid, train (0001TP)",
        "42 training images with 2 vehicles, 12 to 30 each",
    ]
    assert record_["training"]["images seen"] == "20 in 8 steps of all vehicles together"  # type: ignore[index]
    assert "/home" not in json.dumps(record_)


def test_what_left_the_vehicles_follows_from_the_experiment() -> None:
    def kinds(**fields: object) -> list[str]:
        return [row[0] for row in told(**fields)["left"]]  # type: ignore[attr-defined, index]

    test_set = {"evaluation": [{"kind": "synthetic", "split": "val"}]}
    plain = ["enrolment, once", "update, each round", "failure"]
    assert kinds(data=test_set) == plain
    assert kinds() == [*plain[:2], "evaluation", "failure"]  # scored on the vehicles' own frames
    estimated = kinds(data=test_set, federation={"statistics": "estimated"})
    assert estimated == [*plain[:2], "norm statistics", "failure"]
    with_facts = told(federation={"weights": "fedgau"})["left"]
    assert FLEET_FACTS["image_gaussian"].why in with_facts[0][1]  # type: ignore[index]
    assert told()["left_note"].startswith("No image")  # type: ignore[attr-defined]


def test_a_baseline_does_not_claim_that_images_stayed() -> None:
    record_ = told(baseline={"kind": "centralised"})
    assert (record_["left_note"], record_["left"]) == (CENTRALISED, [])
    assert record_["training"]["method"] == "centralised baseline"  # type: ignore[index]


def test_a_run_folder_tells_the_same(tmp_path: Path) -> None:
    report = read_run(run_folder(tmp_path / "run", [0.4, 0.5]))
    record_ = record_of_run(report)
    assert record_["scores"]["miou"] == scored(0.5).miou
    assert record_["scored_round"] == 2
    unscored = record_of_run(read_run(run_folder(tmp_path / "other", [None])))
    assert (unscored["scores"], unscored["protocol"]) == ({}, None)
