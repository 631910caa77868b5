"""Loss terms that need no labels: each is a mean over image pixels, 0 if there are none.

Suffixes: N images, C classes, H and W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def pseudo_cross_entropy(
    logits_NCHW: Tensor, ids_NHW: Tensor, weights_NHW: Tensor, count: Tensor
) -> Tensor:
    """Sum the weighted cross-entropy of pixels and divide by `count`.

    If no pixel counts, the result and its gradient are 0.
    """
    losses_NHW = functional.cross_entropy(logits_NCHW, ids_NHW, reduction="none")
    return (losses_NHW * weights_NHW).sum() / count.clamp(min=1)


def entropy(logits_NCHW: Tensor, valid_NHW: Tensor) -> Tensor:
    """Mean entropy of predictions in units of log C, its maximum: 0 to 1.

    Vu, Jain, Bucher, Cord, Perez, ADVENT, CVPR 2019, arXiv 1811.12833, equation 3. LADD uses its
    fourth power.
    """
    logs_NCHW = logits_NCHW.log_softmax(dim=1)
    of_pixel_NHW = -(logs_NCHW.exp() * logs_NCHW).sum(dim=1) / math.log(logits_NCHW.shape[1])
    return (of_pixel_NHW * valid_NHW).sum() / valid_NHW.sum().clamp(min=1)


def max_square(logits_NCHW: Tensor, valid_NHW: Tensor, ratio: float) -> Tensor:
    """Reward confident predictions, more for an image's rare classes than for its frequent ones.

    -1/(2 N) sum over images of sum over pixels of w sum_c p_c^2, with w = 1 / (n^ratio |I|^(1 -
    ratio)), where n is the number of the image's pixels predicted as the same class and |I| the
    number of all its pixels. With ratio 0 each image counts as the mean over its pixels. Chen, Xue,
    Cai, ICCV 2019, arXiv 1909.13589, equations 5 and 8; the authors' code divides by C where the
    paper divides by 2.
    """
    probs_NCHW = logits_NCHW.softmax(dim=1)
    squares_NHW = probs_NCHW.square().sum(dim=1)
    ids_NHW = probs_NCHW.detach().argmax(dim=1)
    weights_NHW = image_weights(ids_NHW, valid_NHW, logits_NCHW.shape[1], ratio)
    return -0.5 * (squares_NHW * weights_NHW).sum() / len(logits_NCHW)


def image_weights(ids_NHW: Tensor, valid_NHW: Tensor, num_classes: int, ratio: float) -> Tensor:
    """Weight pixels by the number of pixels of the same class in their image: see `max_square`."""
    classes_C = torch.arange(num_classes, device=ids_NHW.device)
    one_of_NCHW = (ids_NHW.unsqueeze(1) == classes_C.view(1, -1, 1, 1)) & valid_NHW.unsqueeze(1)
    counts_NC = one_of_NCHW.flatten(2).sum(dim=2).double()
    of_image_N1 = counts_NC.sum(dim=1, keepdim=True)
    weights_NC = 1 / (counts_NC**ratio * of_image_N1 ** (1 - ratio)).clamp(min=1)
    weights_NHW = torch.gather(weights_NC, 1, ids_NHW.flatten(1)).view(ids_NHW.shape)
    return (weights_NHW * valid_NHW).float()


def distillation(
    logits_NCHW: Tensor, old_logits_NCHW: Tensor, kept_NHW: Tensor, valid_NHW: Tensor, heat: float
) -> Tensor:
    """Distil from an earlier model where there is a pseudo-label.

    -sum of softmax(old / heat) log softmax(new) over kept pixels and classes, divided by all image
    pixels and by C: LADD's, whose alpha of 0.5 is a heat of 2. LADD's code multiplies each pixel's
    term by its true train id, even of vehicles declared unlabelled; that is not done here.
    """
    old_NCHW = (old_logits_NCHW / heat).softmax(dim=1)
    of_pixel_NHW = -(old_NCHW * logits_NCHW.log_softmax(dim=1)).mean(dim=1)
    return (of_pixel_NHW * kept_NHW).sum() / valid_NHW.sum().clamp(min=1)
