"""Which predictions are learnt: by hand, against the loop of LADD's code, and at the edges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fleetseg.config import SelfTrainingConfig
from fleetseg.learning.self_training.pseudo_labels import pseudo_labels, surest_of_each


def probs(*sure_of_0: float) -> Tensor:
    """One image of one row, two classes."""
    first = torch.tensor(sure_of_0)
    return torch.stack([first, 1 - first]).view(1, 2, 1, -1)


def weights(probs_NCHW: Tensor, valid: list[bool] | None = None, **settings: object) -> list[float]:
    count = probs_NCHW.shape[-1]
    valid_NHW = torch.tensor(valid or [True] * count).view(1, 1, count)
    chosen = SelfTrainingConfig.model_validate(settings)
    return pseudo_labels(probs_NCHW, valid_NHW, chosen).weights_NHW.flatten().tolist()


def test_a_threshold_keeps_what_is_surer_whatever_the_class() -> None:
    assert weights(probs(0.95, 0.9, 0.6, 0.02), select="threshold", confidence=0.9) == [1, 0, 0, 1]


def test_a_share_is_of_each_class() -> None:
    """Class 0 has three pixels, of which 66 % are one; class 1 has one, of which 66 % are none."""
    assert weights(probs(0.6, 0.7, 0.8, 0.1), select="class share", top=0.66) == [0, 0, 1, 0]
    assert weights(probs(0.6, 0.7, 0.8, 0.1), select="class share", top=0.7) == [0, 1, 1, 0]


def test_either_keeps_both() -> None:
    both = probs(0.6, 0.7, 0.8, 0.05)
    assert weights(both, select="either", confidence=0.9, top=0.66) == [0, 0, 1, 1]


def test_quality_weighs_a_whole_image() -> None:
    assert weights(probs(0.99, 0.98, 0.5, 0.6), select="quality", confidence=0.968) == [0.5] * 4


def test_each_image_has_a_quality_of_its_own() -> None:
    """DAFormer's code has one for a batch."""
    two = torch.cat([probs(0.99, 0.98), probs(0.99, 0.6)])
    valid = torch.ones(2, 1, 2, dtype=torch.bool)
    seen = pseudo_labels(two, valid, SelfTrainingConfig(select="quality", confidence=0.968))
    assert seen.weights_NHW.flatten().tolist() == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize("select", ["threshold", "class share", "either", "quality"])
def test_what_is_no_picture_is_neither_learnt_nor_counted(select: str) -> None:
    """Padding is predicted, too, and often surely."""
    sure = probs(0.99, 0.98, 0.97, 0.96)
    assert weights(sure, [True, True, False, False], select=select, top=1.0) == [1, 1, 0, 0]
    assert weights(sure, [False] * 4, select=select, top=1.0) == [0] * 4


def test_ids_are_the_likeliest_classes_learnt_or_not() -> None:
    seen = pseudo_labels(
        probs(0.6, 0.4), torch.zeros(1, 1, 2, dtype=torch.bool), SelfTrainingConfig()
    )
    assert seen.ids_NHW.flatten().tolist() == [0, 1]


def by_loop(sure: Tensor, ids: Tensor, top: float) -> Tensor:
    """What LADD's code does, class by class."""
    kept = torch.zeros_like(sure, dtype=torch.bool)
    for train_id in ids.unique():
        mine = ids == train_id
        of_class = torch.where(mine, sure, torch.zeros(()))
        best = torch.topk(of_class, int(float(mine.sum()) * top + 1e-9)).indices
        kept[best] = True
        kept &= (ids != train_id) | mine
    return kept


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(0.01, 1.0))
def test_shares_are_those_of_a_loop_over_classes(seed: int, pixels: int, top: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    sure = torch.rand(pixels, generator=draw)
    ids = torch.randint(0, 4, (pixels,), generator=draw)
    valid = torch.ones(pixels, dtype=torch.bool)
    assert torch.equal(surest_of_each(sure, ids, valid, top), by_loop(sure, ids, top))


def test_of_equals_those_that_come_first() -> None:
    ids, valid = torch.zeros(4, dtype=torch.int64), torch.ones(4, dtype=torch.bool)
    assert surest_of_each(torch.full((4,), 0.5), ids, valid, 0.5).tolist() == [1, 1, 0, 0]
