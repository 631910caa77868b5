"""Hard-pixel losses of published systems, where they differ from `losses.ohem`.

Shapes: logits_NCHW float, labels_NHW train ids with 255 = ignore; N images, P all pixels of one.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from fleetseg.data.labels import IGNORE

FEDSEG_SURE = 0.7
"""Probability of the right class above which FedSeg counts a pixel as easy."""
FEDSEG_SHARE = 0.25
"""Least share of the valid pixels that FedSeg uses."""


def ohem_feddrive(
    logits_NCHW: Tensor, labels_NHW: Tensor, fraction: float, class_weights_C: Tensor | None = None
) -> Tensor:
    """Mean over the hardest `fraction` of each image's pixels, where ignored pixels count as 0.

    HardNegativeMining of FedDrive and LADD: the loss of an image that is mostly void is small.
    """
    losses_NP = _pixel_losses(logits_NCHW, labels_NHW, class_weights_C).flatten(1)
    count = max(1, int(fraction * losses_NP.shape[1]))
    return losses_NP.topk(count, dim=1, sorted=False).values.mean()


def ohem_fedseg(
    logits_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor | None = None
) -> Tensor:
    """Mean over the batch's unconfident pixels, but at least a quarter of the valid ones.

    OhemCELoss of FedSeg, with its threshold of 0.7. A batch without a valid pixel gives 0, where
    theirs gives NaN.
    """
    losses_NHW = _pixel_losses(logits_NCHW, labels_NHW, class_weights_C)
    losses_V = losses_NHW[labels_NHW != IGNORE]
    if losses_V.numel() == 0:
        return logits_NCHW[:0].sum()
    hard_V = losses_V[losses_V > -math.log(FEDSEG_SURE)]
    at_least = max(1, int(FEDSEG_SHARE * losses_V.numel()))
    if hard_V.numel() < at_least:
        hard_V = losses_V.topk(at_least, sorted=False).values
    return hard_V.mean()


def _pixel_losses(
    logits_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor | None
) -> Tensor:
    return functional.cross_entropy(
        logits_NCHW, labels_NHW, weight=class_weights_C, ignore_index=IGNORE, reduction="none"
    )
