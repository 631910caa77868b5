"""The frames that decided: those where the candidate has most newly wrong, as five panels."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image
from tests.release_world import PEDESTRIAN, World

from fleetseg.data.labels import CAMVID_11
from fleetseg.experiment_file import load_experiment
from fleetseg.judging.counts import Measured, Row, Rows
from fleetseg.release.frames import frames_of
from fleetseg.release.judge import Check, Sides
from fleetseg.release.pictures import Chosen, choose, draw
from fleetseg.runs.inference import ready_model
from fleetseg.runs.scored_frames import open_scored_frames

BINS = np.zeros((3, 2), np.int64)


def rows(*missed: int, made_up: int = 0) -> Rows:
    """Frames of 50 pedestrian pixels, so many of which are called road."""
    conf_RCC = np.zeros((len(missed), 11, 11), np.int64)
    conf_RCC[:, PEDESTRIAN, 3] = missed
    conf_RCC[:, PEDESTRIAN, PEDESTRIAN] = 50 - np.array(missed)
    conf_RCC[:, 3, 4] = made_up
    names = [Row(f"frame-{k}", ("day", "night")[k % 2]) for k in range(len(missed))]
    return Rows(tuple(names), conf_RCC)


def sides(now: Rows, new: Rows) -> Sides:
    both = [Measured(one, BINS, {("fog", 2): one}) for one in (new, now)]
    return Sides(CAMVID_11, both[0], both[1], (1.0, 1.0))


SIDES = sides(rows(0, 0, 10, 0), rows(5, 20, 0, 30))


def check(kind: str, name: str) -> Check:
    return Check(kind, name, "fallen", "")


def test_the_frames_furthest_behind_are_shown_for_each_check() -> None:
    (first, second) = choose(SIDES, [check("class", "pedestrian")])
    assert first == Chosen("frame-3", "30 more wrong pedestrian pixels than the current model")
    assert second.name == "frame-1"
    shown = choose(SIDES, [check("domain", "day")])
    assert [one.name for one in shown] == ["frame-0"]  # frame-2 is better than it was
    (worst, _) = choose(SIDES, [check("robustness", "fog")])
    assert (worst.name, worst.corruption) == ("frame-3", "fog")
    assert worst.why == "30 more wrong pixels than the current model in fog, severity 2 of 3"


def test_a_promoted_model_shows_its_worst_too() -> None:
    assert [one.name for one in choose(SIDES, [])] == ["frame-3", "frame-1", "frame-0"]
    assert not any(one.decided for one in choose(SIDES, [check("latency", "ms per image")]))
    assert choose(sides(rows(3, 3), rows(3, 3)), []) == ()
    assert choose(replace(SIDES, current=None), []) == ()


def test_other_classes_do_not_count_for_a_class() -> None:
    more = sides(rows(0, 0), rows(0, 2, made_up=40))
    (only,) = choose(more, [check("class", "pedestrian")])
    assert only.why == "2 more wrong pedestrian pixels than the current model"


def test_panels_show_what_the_models_say(world: World) -> None:
    experiment = load_experiment(world.experiment)
    both = []
    for path in (world.blind, world.current):
        ready = ready_model(path, "cpu", "fp32")
        both.append((ready, frames_of(open_scored_frames(experiment, ready))))
    name = both[0][1][3].row.name
    (plain, foggy) = draw([Chosen(name, "why"), Chosen(name, "why", "fog")], *both, seed=0)
    assert list(plain.pictures) == ["image", "truth", "current", "candidate", "newly wrong"]
    opened = {title: picture(uri) for title, uri in plain.pictures.items()}
    assert {one.size for one in opened.values()} == {(64, 48)}
    truth, now, new = (np.array(opened[k]) for k in ("truth", "current", "candidate"))
    assert (now == truth).all()
    assert PEDESTRIAN in truth
    assert PEDESTRIAN not in new
    red = np.array(opened["newly wrong"]).astype(int)
    is_red = red[..., 0] - red[..., 1] > 90
    assert (is_red == (new != truth)).mean() > 0.95  # a JPEG
    assert foggy.pictures["image"] != plain.pictures["image"]
    assert foggy.pictures["truth"] == plain.pictures["truth"]


def picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
