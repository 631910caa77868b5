"""Frames whose predictions a run keeps: the same at every scoring, and no bit of the model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.experiments import tiny_experiment

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.labels import CAMVID_11
from fleetseg.evaluation.predict import predict
from fleetseg.federation.records import RoundRecord
from fleetseg.runs.enrolled import read_enrolled
from fleetseg.runs.image_counts import read_counts
from fleetseg.runs.kept_frames import (
    FOLDER,
    ids_of,
    ids_picture,
    mistakes,
    read_frames,
    read_seen,
    wrong_share,
)
from fleetseg.runs.report import read_run
from fleetseg.runs.run import Run, run_experiment


def experiment_of(cache: Path, pictures: int) -> Experiment:
    drives = {"cities": ["amber", "birch"], "conditions": ["day"]}
    return tiny_experiment(
        cache,
        data={
            "sources": [{**drives, "frames_per_drive": 2}],
            "evaluation": [{**drives, "frames_per_drive": 3, "split": "val"}],
        },
        federation={"rounds": 2},
        evaluation={"pictures": pictures},
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(cache: Path) -> FleetData:
    return open_fleet_data(experiment_of(cache, 3))


@pytest.fixture(scope="module")
def run(cache: Path, data: FleetData, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "kept"
    return run_experiment(experiment_of(cache, 3), data, folder)


def test_every_domain_has_frames_and_every_scoring_their_predictions(run: Run) -> None:
    frames, seen = read_frames(run.folder), read_seen(run.folder)
    assert [frame.domain for frame in frames] == ["amber-day", "amber-day", "birch-day"]
    assert len({(frame.set, frame.index) for frame in frames}) == 3
    assert {n: len(each) for n, each in seen.items()} == {1: 3, 2: 3}


def test_what_is_kept_is_what_the_model_predicts(run: Run, data: FleetData) -> None:
    (part,), model = data.evaluation, run.model()
    for frame, kept in zip(read_frames(run.folder), read_seen(run.folder)[2], strict=True):
        image_HWC, label_HW = part.scored.pairs[frame.index]
        pred_HW = predict(model, image_HWC[None], label_HW.shape)[0]
        assert (ids_of(kept.prediction) == pred_HW).all()
        assert (ids_of(frame.truth) == label_HW).all()
        assert kept.wrong == wrong_share(label_HW, pred_HW)


def test_what_single_frames_add_to_the_score_is_kept(run: Run) -> None:
    counts = read_counts(run.folder)
    assert counts is not None
    assert run.scores is not None
    assert run.scores.overall is not None
    conf_CC = run.scores.overall.conf_CC
    wanted = [np.diag(conf_CC), conf_CC.sum(axis=1), conf_CC.sum(axis=0)]
    assert counts.round == 2
    assert (counts.parts_N3C.sum(axis=0) == wanted).all()
    assert counts.block_N.tolist() == [0, 0, 0, 1, 1, 1]  # two cities, a drive of three frames


def test_the_model_is_the_same_without(
    run: Run, cache: Path, data: FleetData, tmp_path: Path
) -> None:
    without = experiment_of(cache, 0)
    assert without.digest == run.experiment.digest
    other = run_experiment(without, data, tmp_path / "run")
    assert other.model_sha256 == run.model_sha256
    assert not (other.folder / FOLDER).exists()


def test_a_run_that_goes_on_keeps_its_frames(run: Run, cache: Path, data: FleetData) -> None:
    """Its last scoring is made again, on the frames that were chosen by the first."""
    kept = (run.folder / FOLDER / "frames.json").read_bytes()
    last = run.folder / FOLDER / "round-000002.json"
    before = last.read_bytes()
    last.write_text("{half")
    assert set(read_seen(run.folder)) == {1}
    log = run.folder / "rounds.jsonl"
    first, second, _end = [json.loads(line) for line in log.read_text().splitlines()]
    del second["scores"], second["miou"]
    log.write_text(json.dumps(first) + "\n" + json.dumps(second) + "\n")
    again = run_experiment(run.experiment, data, run.folder, resume=True)
    assert again.model_sha256 == run.model_sha256
    assert (run.folder / FOLDER / "frames.json").read_bytes() == kept
    assert last.read_bytes() == before


def test_what_vehicles_told_is_kept_too(run: Run, data: FleetData) -> None:
    told = {each.client: each for each in read_enrolled(run.folder)}
    assert set(told) == set(data.clients)
    for name, client in data.clients.items():
        assert told[name].histogram_C == tuple(client.enrolment.histogram_C)
        assert told[name].images == client.enrolment.num_images


def test_a_run_says_when_it_started_and_how_long_rounds_trained(run: Run) -> None:
    report = read_run(run.folder)
    assert str(report.environment["started"]).endswith("+00:00")
    trained = [record.training_seconds for record in report.rounds]
    assert all(0 <= (t or 0) <= r.seconds for t, r in zip(trained, report.rounds, strict=True))


def test_older_folders_are_read(run: Run) -> None:
    record = read_run(run.folder).rounds[0]
    fields = record.to_dict()
    del fields["training_seconds"]
    old = RoundRecord.from_dict(fields, CAMVID_11)
    assert replace(record, training_seconds=None, scored=None) == replace(old, scored=None)
    assert read_enrolled(run.folder / "model") == ()
    assert read_frames(run.folder / "model") == ()


def test_ids_survive_as_a_picture() -> None:
    ids_HW = np.array([[0, 1, 10], [254, 255, 7]], np.uint8)
    assert (ids_of(ids_picture(ids_HW)) == ids_HW).all()


def test_mistakes_are_named_by_their_share() -> None:
    label_HW = np.array([[0, 0, 0, 1, 255]], np.uint8)
    pred_HW = np.array([[3, 3, 0, 2, 1]], np.uint8)
    sky, building, pole, road = CAMVID_11.classes[:4]
    found = mistakes(label_HW, pred_HW, CAMVID_11)
    assert found == ((sky, road, 2 / 3), (building, pole, 1 / 3))
    assert mistakes(label_HW, label_HW, CAMVID_11) == ()
