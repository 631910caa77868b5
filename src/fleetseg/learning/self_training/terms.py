"""Terms of a loss that need no label: each a mean over the pixels of pictures, 0 without any.

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
    """Weigh the cross-entropy of each pixel, add up, and divide by a number of pixels.

    Without a pixel that counts it is 0, and so is its gradient.
    """
    losses_NHW = functional.cross_entropy(logits_NCHW, ids_NHW, reduction="none")
    return (losses_NHW * weights_NHW).sum() / count.clamp(min=1)


def entropy(logits_NCHW: Tensor, valid_NHW: Tensor) -> Tensor:
    """Mean entropy of predictions in units of log C, the largest there is: 0 to 1.

    Vu, Jain, Bucher, Cord, Perez, ADVENT, CVPR 2019, arXiv 1811.12833, equation 3. LADD takes its
    fourth power.
    """
    logs_NCHW = logits_NCHW.log_softmax(dim=1)
    of_pixel_NHW = -(logs_NCHW.exp() * logs_NCHW).sum(dim=1) / math.log(logits_NCHW.shape[1])
    return (of_pixel_NHW * valid_NHW).sum() / valid_NHW.sum().clamp(min=1)


def max_square(logits_NCHW: Tensor, valid_NHW: Tensor, ratio: float) -> Tensor:
    """Reward sure predictions, of each image's rare classes more than of its frequent ones.

    -1/(2 N) sum over images of sum over pixels of w sum_c p_c^2, with w = 1 / (n^ratio |I|^(1 -
    ratio)), n the pixels of the image that are predicted as this one is, |I| all of them. With
    ratio 0 each image counts as the mean over its pixels. Chen, Xue, Cai, ICCV 2019, arXiv
    1909.13589, equations 5 and 8; the authors' code divides by C where the paper does by 2.
    """
    probs_NCHW = logits_NCHW.softmax(dim=1)
    squares_NHW = probs_NCHW.square().sum(dim=1)
    ids_NHW = probs_NCHW.detach().argmax(dim=1)
    weights_NHW = image_weights(ids_NHW, valid_NHW, logits_NCHW.shape[1], ratio)
    return -0.5 * (squares_NHW * weights_NHW).sum() / len(logits_NCHW)


def image_weights(ids_NHW: Tensor, valid_NHW: Tensor, num_classes: int, ratio: float) -> Tensor:
    """Weigh pixels by how many of their image are of the same class: see `max_square`."""
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
    """Keep to what an earlier model says, where there is a pseudo-label.

    -sum of softmax(old / heat) log softmax(new) over kept pixels and classes, divided by all pixels
    of pictures and by C: LADD's, whose alpha of 0.5 is a heat of 2. There each pixel's term is
    multiplied by its true train id, of vehicles that are called unlabelled; nothing of that here.
    """
    old_NCHW = (old_logits_NCHW / heat).softmax(dim=1)
    of_pixel_NHW = -(old_NCHW * logits_NCHW.log_softmax(dim=1)).mean(dim=1)
    return (of_pixel_NHW * kept_NHW).sum() / valid_NHW.sum().clamp(min=1)
