"""Frames one by one: the counts of an evaluation, kept apart, and confidences beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.models_on_disk import brightness_model
from tests.release_world import World

import fleetseg
from fleetseg.data.sample import ScoredPairs
from fleetseg.experiment_file import load_experiment
from fleetseg.judging.calibration import expected_calibration_error
from fleetseg.judging.measure import frames_in, measure, seen
from fleetseg.judging.policy import make_policy
from fleetseg.release.frames import frames_of
from fleetseg.runs.inference import ready_model
from fleetseg.runs.scored_frames import open_scored_frames


def test_confidence_is_the_softmaxs_share() -> None:
    image_HWC = np.zeros((8, 8, 3), np.uint8)
    image_HWC[:, :4, 0] = 255
    ready = ready_model(brightness_model(), "cpu", "fp32")
    with torch.inference_mode():
        pred_HW, confidence_HW = seen(ready, image_HWC, (8, 8))
    assert pred_HW[0].tolist() == [1] * 4 + [0] * 4
    # Logits (0, red - 1/2): 1 / (1 + e^-1/2) on either side.
    assert confidence_HW == pytest.approx(np.full((8, 8), 1 / (1 + np.exp(-0.5))), abs=1e-6)


def test_rows_add_up_to_an_evaluation(world: World) -> None:
    experiment = load_experiment(world.experiment)
    ready = ready_model(world.blind, "cpu", "fp32")
    frames = frames_of(open_scored_frames(experiment, ready))
    policy = make_policy({"robustness": {"kinds": ["jpeg"], "images": 5}})
    told: list[tuple[int, int]] = []
    measured = measure(ready, frames, policy, lambda what, done, of: told.append((done, of)))
    whole = fleetseg.evaluate(world.blind, experiment, device="cpu", precision="fp32")
    for domain, conf_CC in whole.conf_by_domain.items():
        assert (measured.clean.of_domain(domain).total_CC == conf_CC).all()
    assert len(measured.clean) == 12
    assert measured.clean.rows[0].name == "camvid/val/0001TP_000000"
    assert {row.drive for row in measured.clean.rows} == {"camvid/0001TP", "camvid/0016E5"}
    assert {key: len(rows) for key, rows in measured.worse.items()} == {
        ("jpeg", severity): 5 for severity in (1, 2, 3)
    }
    assert measured.bins_3B[0].sum() == whole.scores.num_pixels
    assert measured.bins_3B[1].sum() == np.trace(whole.scores.conf_CC)
    assert 0 <= expected_calibration_error(measured.bins_3B) <= 1
    assert told[-1] == (12 + 15, 12 + 15)
    again = measure(ready, frames, policy)
    assert all((again.worse[k].conf_RCC == measured.worse[k].conf_RCC).all() for k in again.worse)


def test_own_pairs_have_no_drives() -> None:
    pairs = [(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))]
    (frame,) = frames_in(ScoredPairs(pairs, ("day",)), "car")
    assert (frame.row.name, frame.row.domain, frame.row.drive) == ("car/0000", "day", "")
    assert frame.pair()[0].shape == (8, 8, 3)
