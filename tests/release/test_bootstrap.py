"""The paired bootstrap: by hand, against sklearn and scipy, and honest about noise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import jaccard_score

from fleetseg.evaluation.confusion import confusion
from fleetseg.release.bootstrap import Difference, difference, draws, resampled, unit_parts
from fleetseg.release.judge import verdict_of

WAYS = {"confidence": 0.95, "resamples": 2000, "seed": 0}


def frames(count: int, wrong: float, seed: int, pixels: int = 400) -> np.ndarray:
    """Confusion matrices of frames with few pedestrians (class 2), of which a share is missed."""
    rng = np.random.default_rng(seed)
    true_RC = rng.multinomial(pixels, [0.6, 0.3, 0.1], size=count)
    missed_RC = rng.binomial(true_RC, np.clip(rng.normal(wrong, 0.1, (count, 1)), 0, 1))
    conf_RCC = np.zeros((count, 3, 3), np.int64)  # some frames are harder than others
    for k in range(3):
        conf_RCC[:, k, k] = true_RC[:, k] - missed_RC[:, k]
        conf_RCC[:, k, (k + 1) % 3] = missed_RC[:, k]
    return conf_RCC


def names(count: int) -> list[str]:
    return [f"frame-{number:04d}" for number in range(count)]


def test_two_frames_by_hand() -> None:
    """Draws of two frames are (2, 0), (1, 1), (0, 2) with 1/4, 1/2, 1/4."""
    current = np.array([[[8, 2], [0, 10]], [[10, 0], [0, 10]]])
    candidate = np.array([[[8, 2], [0, 10]], [[10, 0], [10, 0]]])
    parts = [unit_parts(conf, ["a", "b"]) for conf in (current, candidate)]
    assert parts[0].tolist() == [[[8, 10], [10, 10], [8, 12]], [[10, 10], [10, 10], [10, 10]]]
    changes = resampled(*parts, 1, 2000, 0)
    values, counts = np.unique(changes.round(9), return_counts=True)
    # IoU of class 1: a alone 10/12 for both; a and b 20/22 and 10/22; b alone 1 and 0.
    assert values == pytest.approx([-1, -10 / 22, 0])
    assert counts / 2000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    found = difference(current, candidate, ["a", "b"], class_id=1, **WAYS)
    assert found is not None
    assert (found.current, found.candidate) == (20 / 22, 10 / 22)
    assert (found.low, found.high) == (-1, 0)


def test_each_resample_is_sklearns_jaccard_of_the_drawn_frames() -> None:
    rng = np.random.default_rng(5)
    labels, now, new = (rng.integers(0, 3, (6, 50)) for _ in range(3))
    confs = [np.stack([confusion(*one, 3) for one in zip(labels[:, None], pred[:, None],
             strict=True)]) for pred in (now, new)]  # fmt: skip
    parts = [unit_parts(conf, names(6)) for conf in confs]
    ours = resampled(*parts, None, 20, 4)
    for weights, change in zip(draws(6, 20, 4), ours, strict=True):
        drawn = np.repeat(np.arange(6), weights)
        occur = np.unique(labels[drawn])
        theirs = [
            jaccard_score(labels[drawn].ravel(), pred[drawn].ravel(), labels=occur, average="macro")
            for pred in (now, new)
        ]
        assert change == pytest.approx(theirs[1] - theirs[0], abs=1e-12)


def test_the_interval_is_scipys() -> None:
    """scipy draws other resamples: both have the noise of 4000 of them."""
    now, new = frames(40, 0.20, 1), frames(40, 0.25, 2)
    mine = difference(now, new, names(40), class_id=2, confidence=0.9, resamples=4000, seed=0)
    assert mine is not None

    def statistic(index: np.ndarray) -> float:
        ious = []
        for conf in (now, new):
            total = conf[index].sum(axis=0)
            ious.append(total[2, 2] / (total[2].sum() + total[:, 2].sum() - total[2, 2]))
        return float(ious[1] - ious[0])

    theirs = stats.bootstrap(
        (np.arange(40),), statistic, vectorized=False, n_resamples=4000, confidence_level=0.9,
        method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert mine.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert mine.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_draws_are_a_function_of_the_seed() -> None:
    assert (draws(7, 50, 3) == draws(7, 50, 3)).all()
    assert (draws(7, 50, 3) != draws(7, 50, 4)).any()
    assert (draws(7, 50, 3).sum(axis=1) == 7).all()


def test_frames_of_a_drive_are_drawn_together() -> None:
    """Ten frames that are one frame ten times over tell no more than it does."""
    now, new = frames(6, 0.2, 1), frames(6, 0.2, 2)
    once = difference(now, new, names(6), class_id=2, **WAYS)
    drives = [name for name in names(6) for _ in range(10)]
    often = difference(now.repeat(10, axis=0), new.repeat(10, axis=0), drives, class_id=2, **WAYS)
    assert once is not None
    assert often is not None
    assert (often.low, often.high, often.units) == (once.low, once.high, 6)


def test_a_class_that_is_not_in_the_truth_has_no_difference() -> None:
    conf = np.array([[[5, 1], [0, 0]]])  # made up once, never true
    assert difference(conf, conf, ["a"], class_id=1, **WAYS) is None
    found = difference(conf, conf, ["a"], class_id=None, **WAYS)
    assert found == Difference(5 / 6, 5 / 6, None, None, 1)


def test_a_planted_fall_is_caught() -> None:
    for seed in range(20):
        now, new = frames(60, 0.20, seed), frames(60, 0.20, 1000 + seed)
        new[:, 2, 0] += new[:, 2, 2] // 3  # a third of the pedestrians found are lost
        new[:, 2, 2] -= new[:, 2, 2] // 3
        found = difference(now, new, names(60), class_id=2, **WAYS)
        assert found is not None
        assert verdict_of(found, 0.02) == "fallen"


def test_noise_alone_is_not() -> None:
    """Two models with the same faults, drawn anew: at 95% one in forty looks like a fall."""
    caught = 0
    for seed in range(200):
        now, new = frames(40, 0.2, seed, 100), frames(40, 0.2, 5000 + seed, 100)
        found = difference(now, new, names(40), class_id=2, confidence=0.95, resamples=300, seed=0)
        assert found is not None
        caught += verdict_of(found, 0.0) == "fallen"
    assert caught <= 12  # 200/40 = 5 are expected, and more than 12 by chance once in 500
