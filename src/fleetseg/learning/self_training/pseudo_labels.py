"""Select which of a teacher's predictions are learnt, and how much each pixel counts.

Suffixes: N images, C classes, H and W pixels, P the pixels of one image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fleetseg.config import SelfTrainingConfig


@dataclass(frozen=True)
class PseudoLabels:
    """Predictions that take the place of labels."""

    ids_NHW: Tensor  # int64: the likeliest class of each pixel, learnt or not
    weights_NHW: Tensor  # float32, at least 0; 0 where nothing is learnt


def pseudo_labels(
    probs_NCHW: Tensor, valid_NHW: Tensor, settings: SelfTrainingConfig
) -> PseudoLabels:
    """Choose among a teacher's predictions.

    Args:
        probs_NCHW: the teacher's probabilities, summing to 1 over classes.
        valid_NHW: bool; False outside the image, where nothing is learnt.
        settings: `select` and its parameters.
    """
    sure_NHW, ids_NHW = probs_NCHW.max(dim=1)
    weights_NHW = SELECT[settings.select](sure_NHW, ids_NHW, valid_NHW, settings)
    return PseudoLabels(ids_NHW, weights_NHW * valid_NHW)


def _threshold(sure: Tensor, ids: Tensor, valid: Tensor, settings: SelfTrainingConfig) -> Tensor:
    return (sure > settings.confidence).float()


def _class_share(sure: Tensor, ids: Tensor, valid: Tensor, settings: SelfTrainingConfig) -> Tensor:
    parts = zip(sure, ids, valid, strict=True)
    kept = [surest_of_each(*part, settings.top) for part in parts]
    return torch.stack(kept).float()


def _either(sure: Tensor, ids: Tensor, valid: Tensor, settings: SelfTrainingConfig) -> Tensor:
    """Take pixels selected by either rule, as in LADD (Shenaj et al., WACV 2023)."""
    by_share = _class_share(sure, ids, valid, settings)
    return torch.maximum(_threshold(sure, ids, valid, settings), by_share)


def _quality(sure: Tensor, ids: Tensor, valid: Tensor, settings: SelfTrainingConfig) -> Tensor:
    """Weight a whole image by the share of its confident pixels.

    DAFormer, Hoyer, Dai, Van Gool, CVPR 2022, arXiv 2111.14887, equation 5. Its code uses one share
    for a whole batch.
    """
    good_N = ((sure > settings.confidence) & valid).flatten(1).sum(dim=1)
    share_N = good_N / valid.flatten(1).sum(dim=1).clamp(min=1)
    return share_N.view(-1, 1, 1).expand_as(sure)


Select = Callable[[Tensor, Tensor, Tensor, SelfTrainingConfig], Tensor]
SELECT: dict[str, Select] = {
    "threshold": _threshold,
    "class share": _class_share,
    "either": _either,
    "quality": _quality,
}
"""(largest probabilities, classes, mask of the image area, settings) -> weights, all NHW."""


def surest_of_each(sure_HW: Tensor, ids_HW: Tensor, valid_HW: Tensor, top: float) -> Tensor:
    """Mark the share `top` of most confident pixels of each class in an image, rounded down.

    Ties go to the first pixels. Invalid pixels belong to no class.
    """
    ids_P = torch.where(valid_HW, ids_HW, -1).flatten()
    by_sureness_P = torch.argsort(sure_HW.flatten(), descending=True, stable=True)
    by_class_P = by_sureness_P[torch.argsort(ids_P[by_sureness_P], stable=True)]
    sorted_P = ids_P[by_class_P]
    _, group_P, counts = torch.unique_consecutive(sorted_P, return_inverse=True, return_counts=True)
    starts = counts.cumsum(0) - counts
    rank_P = torch.arange(len(sorted_P), device=sure_HW.device) - starts[group_P]
    # The tolerance is for products such as 0.29 * 100 = 28.999999999999996.
    most = (counts.double() * top + 1e-9).floor().long()
    kept_P = torch.empty_like(ids_P, dtype=torch.bool)
    kept_P[by_class_P] = (rank_P < most[group_P]) & (sorted_P >= 0)
    return kept_P.view_as(sure_HW)
