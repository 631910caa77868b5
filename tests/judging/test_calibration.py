"""The expected calibration error: by hand, as torchmetrics has it, exact in any order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fleetseg.judging.calibration import bins_of, expected_calibration_error
from fleetseg.judging.counts import ONE


def test_by_hand() -> None:
    """Two bins: two pixels at 0.25, one of them right; two at 0.75, both right."""
    confidence = np.array([[0.25, 0.25, 0.75, 0.75, 0.99]], np.float32)
    label = np.array([[0, 1, 1, 0, 255]], np.uint8)  # the last counts nowhere
    pred = np.array([[0, 0, 1, 0, 0]], np.uint8)
    bins_3B = bins_of(confidence, pred, label, 2)
    assert bins_3B.tolist() == [[2, 2], [1, 2], [ONE // 2, 3 * ONE // 2]]
    assert bins_3B.dtype == np.int64
    assert expected_calibration_error(bins_3B) == (abs(1 - 0.5) + abs(2 - 1.5)) / 4


def test_a_border_belongs_to_the_bin_below_it() -> None:
    ends = np.array([[0.0, 0.5, 0.500001, 1.0]], np.float32)
    zeros = np.zeros((1, 4), np.uint8)
    assert bins_of(ends, zeros, zeros, 2)[0].tolist() == [2, 2]


def test_as_torchmetrics_has_it() -> None:
    # Imported here: it takes seconds, in each process of the suite.
    from torchmetrics.functional.classification import multiclass_calibration_error

    draws = np.random.default_rng(3)
    probs = torch.softmax(torch.from_numpy(draws.normal(size=(5000, 4)) * 2), 1).float()
    target = draws.integers(0, 4, 5000)
    confidence, pred = probs.max(1)
    mine = expected_calibration_error(
        bins_of(confidence.numpy()[None], pred.numpy().astype(np.uint8)[None],
                target.astype(np.uint8)[None], 15)
    )  # fmt: skip
    theirs = multiclass_calibration_error(probs, torch.from_numpy(target), 4, n_bins=15, norm="l1")
    assert mine == pytest.approx(float(theirs), abs=1e-6)


def test_images_add_to_the_same_bits_in_any_order() -> None:
    draws = np.random.default_rng(0)
    confidence = draws.random((8, 30, 40), dtype=np.float32)
    pred, label = (draws.integers(0, 3, (8, 30, 40), dtype=np.uint8) for _ in range(2))
    each = [bins_of(*one, 15) for one in zip(confidence, pred, label, strict=True)]
    whole = bins_of(confidence.ravel()[None], pred.ravel()[None], label.ravel()[None], 15)
    assert (sum(each) == whole).all()
    assert (sum(reversed(each)) == whole).all()


def test_nothing_counted_is_no_error_at_all() -> None:
    assert math.isnan(expected_calibration_error(np.zeros((3, 15), np.int64)))
