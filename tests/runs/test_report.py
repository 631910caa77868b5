"""A run folder as a value: of a run that is over, at work, killed, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import CheckpointError
from fleetseg.federation.rounds import Watcher


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> fleetseg.Run:
    folder = tmp_path_factory.mktemp("report")
    experiment = tiny_experiment(folder / "cache", evaluation={"on_clients": True})
    return fleetseg.run(experiment, out=folder / "run")


def test_all_of_a_run_that_is_over_is_read(done: fleetseg.Run) -> None:
    report = fleetseg.read_run(done.folder)
    assert report.experiment == done.experiment
    assert report.space == done.space
    assert [r.to_dict() for r in report.rounds] == [r.to_dict() for r in done.records]
    assert report.end is not None
    assert (report.end.reason, report.end.model_sha256) == ("rounds", done.model_sha256)
    assert report.end.scored is not None
    assert done.scores is not None
    assert report.end.scored.to_dict() == done.scores.to_dict()
    assert set(report.end.scored.conf_by_client) == set(report.rounds[0].cohort)
    assert report.manifest is not None
    assert set(report.manifest.clients) == set(report.rounds[0].cohort)
    assert report.environment["precision"] == "fp32"


def test_a_run_that_is_not_over_has_no_end(done: fleetseg.Run, tmp_path: Path) -> None:
    seen: list[fleetseg.RunReport] = []
    fleetseg.run(
        done.experiment,
        out=tmp_path / "run",
        watcher=Watcher(
            round_closed=lambda record: seen.append(fleetseg.read_run(tmp_path / "run"))
        ),
    )
    assert [len(report.rounds) for report in seen] == [1, 2, 3]
    assert {report.end for report in seen} == {None}


def test_classes_of_one_s_own_are_known_again(tmp_path: Path) -> None:
    space = LabelSpace("mine", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))
    image_HWC = np.zeros((16, 16, 3), np.uint8)
    pairs = [(image_HWC, np.eye(16, dtype=np.uint8))] * 2
    experiment = tiny_experiment(tmp_path / "cache", data={"size": [16, 16]})
    run = fleetseg.run(
        experiment.model_copy(
            update={"federation": experiment.federation.model_copy(update={"rounds": 1})}
        ),
        clients={"a": pairs},
        evaluation={"test": pairs},
        space=space,
        out=tmp_path / "run",
    )
    report = fleetseg.read_run(run.folder)
    assert report.space == space
    assert report.manifest is None
    assert report.rounds[0].scored is not None
    assert set(report.rounds[0].scored.by_domain) == set(report.rounds[0].scored.conf_by_domain)


def test_what_is_no_run_folder_is_refused(done: fleetseg.Run, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        fleetseg.read_run(tmp_path)
    log = done.folder / "rounds.jsonl"
    text = log.read_text()
    try:
        log.write_text('{"round": 1}\n' + text)
        with pytest.raises(CheckpointError, match=r"rounds\.jsonl: a line that is not a round"):
            fleetseg.read_run(done.folder)
    finally:
        log.write_text(text)
