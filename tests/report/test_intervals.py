"""Intervals of scores: of scored frames that are drawn again, or a reason why there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.records import SPACE
from tests.run_folders import run_folder, with_protocol

from fleetseg.evaluation.scored import Scored
from fleetseg.report import render
from fleetseg.report.gather import gather
from fleetseg.report.intervals import DRAWS, FEWEST, drawn_iou, interval
from fleetseg.runs.image_counts import ImageCounts, keep_counts

NUM_BLOCKS = 12


def confs(wrong_of_road: float, blocks: int = NUM_BLOCKS) -> np.ndarray:
    """One frame a block, some better than others."""
    found = []
    for k in range(blocks):
        wrong = int(1000 * wrong_of_road * (1 + k / blocks))
        found.append([[4000 - wrong, wrong], [100 + 20 * k, 900 - 20 * k]])
    return np.array(found, np.int64)


def run(path: Path, conf_RCC: np.ndarray, *, round_: int = 1, name: str = "one", **fields: object):  # type: ignore[no-untyped-def]
    """Write a run folder that was scored on some frames and knows what each of them added."""
    scored = with_protocol(Scored(SPACE, {"day": conf_RCC.sum(axis=0)}, ("test",)))
    run_folder(path, [scored], name=name, **fields)
    parts = [np.diagonal(conf_RCC, axis1=1, axis2=2), conf_RCC.sum(axis=2), conf_RCC.sum(axis=1)]
    counts = ImageCounts(round_, np.stack(parts, axis=1), np.arange(len(conf_RCC)))
    keep_counts(path, counts)
    return path


def test_draws_of_equal_blocks_are_the_figure_itself() -> None:
    parts_U3C = np.array([[[6, 2], [8, 4], [8, 4]]] * FEWEST)
    iou_SC = drawn_iou(parts_U3C)
    assert iou_SC.shape == (DRAWS, 2)
    assert np.unique(iou_SC[:, 0]).tolist() == [0.6]
    assert np.unique(iou_SC[:, 1]) == pytest.approx(1 / 3)


def test_they_are_as_wide_as_theory_has_it() -> None:
    """Of a share of right pixels in blocks of equal size: 1.96 standard errors to each side."""
    right_U = np.array([10, 30, 50, 70, 90] * 10)
    parts_U3C = np.stack([right_U, np.full(50, 100), right_U], axis=1)[:, :, None]
    found = interval(drawn_iou(parts_U3C)[:, 0])
    error = float(right_U.std() / 100 / np.sqrt(50))
    assert found is not None
    assert found.low == pytest.approx(0.5 - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(0.5 + 1.96 * error, abs=0.01)


def test_a_class_that_is_nowhere_has_none() -> None:
    assert interval(np.full(DRAWS, np.nan)) is None


def test_a_run_and_the_centralised_one_are_drawn_together(tmp_path: Path) -> None:
    one = run(tmp_path / "one", confs(0.10))
    pooled = run(tmp_path / "pooled", confs(0.05), name="p", baseline={"kind": "centralised"})
    found = gather([one, pooled]).figures
    assert found.intervals is not None
    assert found.intervals.blocks == NUM_BLOCKS
    miou, own = found.run.miou, found.intervals.miou
    assert own is not None
    assert miou is not None
    assert own.low < miou < own.high
    gap = found.intervals.gap_C[0]  # of the road, in which they differ in every frame alike
    assert gap is not None
    assert gap.leaves_zero_out
    assert gap.high - gap.low < own.high - own.low
    page = render(gather([one, pooled]))
    assert "95\u202f% intervals from 2,000 resamples of the 12 frames" in page
    assert 'class="fed whisker"' in page


def test_other_frames_are_not_drawn_together(tmp_path: Path) -> None:
    one = run(tmp_path / "one", confs(0.10))
    pooled = run(tmp_path / "pooled", confs(0.05, 13), name="p", baseline={"kind": "centralised"})
    found = gather([one, pooled]).figures.intervals
    assert found is not None
    assert (found.gap_miou, found.gap_C) == (None, ())


@pytest.mark.parametrize(
    ("blocks", "round_", "why"),
    [(FEWEST - 1, 1, "too few blocks of frames (7 of 8)"), (NUM_BLOCKS, 2, "is not known here")],
)
def test_few_frames_and_counts_of_another_model_give_none(
    tmp_path: Path, blocks: int, round_: int, why: str
) -> None:
    path = run(tmp_path / "one", confs(0.1, blocks), round_=round_)
    assert gather([path]).figures.intervals is None
    assert why in render(gather([path]))


def test_runs_of_earlier_versions_have_none(tmp_path: Path) -> None:
    found = gather([run_folder(tmp_path / "run", [0.5])]).figures
    assert found.intervals is None
    assert "not known here" in found.no_intervals
