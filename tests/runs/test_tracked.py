"""Trackers follow a run: the figures of its records, each round once, and never at its cost."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.experiments import tiny_experiment
from tests.records import failed, record, scored

import fleetseg
from fleetseg.config import Experiment
from fleetseg.data.sample import Image_HWC
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.runs.tracked import FOLDER, PICTURE, STEPS, figures_of, tracking
from fleetseg.tracking import trackers
from fleetseg.tracking.tracker import Tracked

pytest.importorskip("tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# What a tracker is given of a round


def test_figures_are_those_of_the_record() -> None:
    one = record(
        3,
        cohort=("a", "b", "c"),
        failures=(failed("c", "late"),),
        bytes_up=2_500_000,
        scored=scored(0.5, critical=0.25),
    )
    figures = figures_of(one)
    assert figures["mIoU"] == pytest.approx(0.5, abs=1e-6)
    assert figures["critical mIoU"] == pytest.approx(0.25, abs=1e-6)
    assert figures["IoU/road"] == pytest.approx(0.75, abs=1e-6)
    assert figures["IoU/car"] == pytest.approx(0.25, abs=1e-6)
    assert figures["traffic/MB up"] == 2.5
    assert figures["traffic/MB down"] == 0.001
    assert figures["participation/asked"] == 3
    assert figures["participation/used"] == 2
    assert figures["participation/late"] == 1
    assert figures["participation/lost"] == 0
    assert (figures["loss"], figures["seconds"], figures["images seen"]) == (0.5, 1.5, 10)


def test_what_was_not_rated_is_left_out() -> None:
    nobody = record(1, accepted=(), failures=(failed("a", "lost"),), quorum=False, loss=None)
    figures = figures_of(nobody)
    assert figures["participation/used"] == 0
    assert not {"loss", "mIoU"} & figures.keys()
    assert not any(name.startswith("IoU") for name in figures)


# Whole runs


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def one_vehicle(cache: Path, **sections: dict[str, Any]) -> Experiment:
    """Six runs' worth of tests: as little to paint, to train and to score as there can be."""
    drive = {"conditions": ["day"], "cities": ["amber"], "frames_per_drive": 2}
    data = {"sources": [drive], "evaluation": [{**drive, "split": "val"}]}
    return tiny_experiment(cache, data=data, **sections)


def test_tensorboard_has_each_round_of_a_resumed_run_once(cache: Path, tmp_path: Path) -> None:
    """And the model has the bits of a run that nobody tracked."""
    plain = fleetseg.run(one_vehicle(cache), out=tmp_path / "plain")
    followed = one_vehicle(
        cache, tracking={"to": ["tensorboard"], "pictures": 2}, evaluation={"pictures": 2}
    )
    assert followed.digest == one_vehicle(cache).digest

    def interrupt(one: RoundRecord) -> None:
        if one.round == 2:
            raise KeyboardInterrupt

    out = tmp_path / "followed"
    begun = fleetseg.run(followed, out=out, watcher=Watcher(round_closed=interrupt))
    assert begun.reason == "interrupted"
    run = fleetseg.run(followed, out=out, resume=True)
    assert run.model_sha256 == plain.model_sha256
    assert any(note.startswith("tracked by tensorboard: ") for note in run.notes)

    found = EventAccumulator(str(out / FOLDER), size_guidance={"images": 0}).Reload()
    for name in ("mIoU", "critical mIoU", "loss", "IoU/road", "traffic/MB up", "seconds"):
        told = [(event.step, event.value) for event in found.Scalars(name)]
        recorded = [(r.round, pytest.approx(figures_of(r)[name])) for r in run.records]
        assert told == recorded, name
    pictures = found.Images(PICTURE)
    assert [picture.step for picture in pictures] == [1, 2, 3]
    shown_HWC = np.asarray(Image.open(io.BytesIO(pictures[-1].encoded_image_string)))
    assert len(np.unique(shown_HWC.reshape(-1, 3), axis=0)) > 100  # a photo, and painted classes


def test_a_baseline_is_tracked_in_its_own_folder(cache: Path, tmp_path: Path) -> None:
    followed = one_vehicle(
        cache, tracking={"to": ["tensorboard"], "pictures": 0}, federation={"rounds": 1}
    )
    fleetseg.run(followed, out=tmp_path / "pooled", baseline="centralised")
    found = EventAccumulator(str(tmp_path / "pooled" / FOLDER)).Reload()
    assert [event.step for event in found.Scalars("mIoU")] == [1]


# Trackers that fail, and runs that were broken off


class Kept:
    """A tracker that keeps what it is given, and fails where it is told to."""

    def __init__(self, tracked: Tracked, fails_in: int = 0, error: Exception | None = None) -> None:
        self.where, self.tracked = "memory", tracked
        self.fails_in, self.error = fails_in, error or ConnectionError("no route to host")
        self.steps: list[int] = []
        self.pictures: list[int] = []
        self.closed = 0

    def scalars(self, step: int, values: dict[str, float]) -> None:
        if step == self.fails_in:
            raise self.error
        self.steps.append(step)

    def image(self, step: int, name: str, image_HWC: Image_HWC) -> None:
        self.pictures.append(step)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Kept]:
    """Trackers "tensorboard", which works, and "wandb", which fails in round 2."""
    kept: list[Kept] = []

    def opener(fails_in: int) -> Any:
        def open_tracker(tracked: Tracked) -> Kept:
            kept.append(Kept(tracked, fails_in))
            return kept[-1]

        return open_tracker

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", opener(0))
    monkeypatch.setitem(trackers.TRACKERS, "wandb", opener(2))
    return kept


def follow(
    folder: Path,
    to: Sequence[str],
    records: list[RoundRecord],
    rounds: Sequence[RoundRecord],
    picture: Any = lambda one: np.zeros((2, 2, 3), np.uint8),
) -> tuple[list[str], list[str]]:
    """Commit rounds one after another; returns what was warned of, and the notes."""
    folder.mkdir(exist_ok=True)
    warned: list[str] = []
    notes: list[str] = []
    experiment = Experiment(tracking={"to": to})
    with tracking(experiment, folder, lambda: records, warned.append, notes) as tracked:
        watcher = tracked.watcher(Watcher(), picture)
        for one in rounds:
            records.append(one)
            watcher.round_closed(one)
    return warned, notes


def test_a_tracker_that_fails_is_warned_of_once_and_caught_up_with_later(
    tmp_path: Path, opened: list[Kept]
) -> None:
    records: list[RoundRecord] = []
    rounds = [record(n, scored=scored(0.5)) for n in (1, 2, 3, 4)]
    warned, notes = follow(tmp_path, ["tensorboard", "wandb"], records, rounds[:3])
    assert [kept.steps for kept in opened] == [[1, 2, 3], [1]]
    assert warned == [
        "note: wandb is given up until the run is resumed: ConnectionError: no route to host"
    ]
    assert warned[0].removeprefix("note: ") in notes

    opened.clear()
    follow(tmp_path, ["tensorboard"], records, rounds[3:])
    (again,) = opened
    assert (again.tracked.step, again.steps, again.closed) == (3, [4], 1)


def test_a_tracker_that_begins_late_gets_all_rounds(tmp_path: Path, opened: list[Kept]) -> None:
    rounds = [record(n, scored=scored(0.5)) for n in (1, 2, 3)]
    follow(tmp_path, ["tensorboard"], rounds[:2], rounds[2:])
    assert opened[0].steps == [1, 2, 3]
    assert opened[0].pictures == [1, 2, 3]


def test_a_round_that_is_scored_after_a_resume_is_tracked_with_its_scores(
    tmp_path: Path, opened: list[Kept]
) -> None:
    unscored = record(1)
    follow(tmp_path, ["tensorboard"], [unscored], [])
    follow(tmp_path, ["tensorboard"], [record(1, scored=scored(0.5))], [])
    assert [kept.steps for kept in opened] == [[], [1]]


def test_a_tracker_that_cannot_be_opened_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(tracked: Tracked) -> Kept:
        raise TimeoutError("the server did not answer")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", offline)
    warned, _ = follow(tmp_path, ["mlflow"], [], [record(1, scored=scored(0.5))])
    assert warned == [
        "note: mlflow does not track this run: TimeoutError: the server did not answer"
    ]


def test_a_full_disk_ends_tracking_and_not_the_run(
    tmp_path: Path, opened: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")

    def no_room(path: Path, data: str) -> None:
        if json.loads(data)["steps"]:
            raise full

    monkeypatch.setattr("fleetseg.runs.tracked.write_atomic", no_room)
    rounds = [record(n, scored=scored(0.5)) for n in (1, 2)]
    warned, _ = follow(tmp_path, ["tensorboard"], [], rounds)
    assert len(warned) == 1
    assert "No space left on device" in warned[0]


def test_a_picture_that_fails_is_the_last_one_tried(tmp_path: Path, opened: list[Kept]) -> None:
    def draw(one: RoundRecord) -> Image_HWC:
        raise MemoryError("no room for the frame")

    rounds = [record(n, scored=scored(0.5)) for n in (1, 2)]
    warned, _ = follow(tmp_path, ["tensorboard"], [], rounds, draw)
    assert warned == ["note: pictures are no longer tracked: MemoryError: no room for the frame"]
    assert opened[0].steps == [1, 2]


def test_without_trackers_nothing_is_written(tmp_path: Path) -> None:
    follow(tmp_path, [], [], [record(1)])
    assert not (tmp_path / FOLDER).exists()


def test_a_run_keeps_its_name_for_trackers(tmp_path: Path, opened: list[Kept]) -> None:
    for _ in range(2):
        follow(tmp_path / "camvid", ["tensorboard"], [], [])
    assert len({kept.tracked.run for kept in opened}) == 1
    assert opened[0].tracked.name == "camvid"
    assert json.loads((tmp_path / "camvid" / FOLDER / STEPS).read_text())["steps"] == {}
