"""Losses over the valid pixels of a batch; a batch without valid pixels gives a finite zero.

Shapes: logits_NCHW float, labels_NHW train ids with 255 = ignore; N images, C classes, P all pixels
of a batch, V its valid (not ignored) pixels.
Every loss is one reduction over valid pixels (or classes), never a mean of means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.config import TrainingConfig
from fleetseg.data.labels import IGNORE
from fleetseg.errors import DataError, unknown_name
from fleetseg.learning.fused import can_fuse, resized_cross_entropy
from fleetseg.learning.published_losses import ohem_feddrive, ohem_fedseg
from fleetseg.learning.resize import resized

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    logits_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy over valid pixels.

    With class weights, this is torch's weighted mean: the sum of weighted pixel losses divided by
    the sum of the pixels' weights, so scaling all weights changes nothing.
    """
    if logits_NCHW.device.type == "cuda":
        return ordered_cross_entropy(logits_NCHW, labels_NHW, class_weights_C)
    if bool((labels_NHW == IGNORE).all()):
        return _zero(logits_NCHW)
    return functional.cross_entropy(
        logits_NCHW, labels_NHW, weight=class_weights_C, ignore_index=IGNORE
    )


def ordered_cross_entropy(
    logits_NCHW: Tensor, labels_NHW: Tensor, class_weights_C: Tensor | None
) -> Tensor:
    """Weighted mean cross-entropy whose sums CUDA computes in a fixed order.

    torch's own reduction adds pixels and their weights in the order in which threads arrive. There
    is no check for a valid pixel, because it would have to wait for the device; without one, 0 is
    divided by a number other than 0.
    """
    losses_NHW = functional.cross_entropy(
        logits_NCHW, labels_NHW, weight=class_weights_C, ignore_index=IGNORE, reduction="none"
    )
    valid_NHW = labels_NHW != IGNORE
    if class_weights_C is None:
        return losses_NHW.sum() / valid_NHW.sum().clamp(min=1)
    weights_NHW = class_weights_C[labels_NHW.where(valid_NHW, 0)] * valid_NHW
    return losses_NHW.sum() / weights_NHW.sum().clamp(min=torch.finfo(weights_NHW.dtype).tiny)


def ohem(
    logits_NCHW: Tensor,
    labels_NHW: Tensor,
    fraction: float,
    class_weights_C: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of the hardest `fraction` of the batch's valid pixels (at least one).

    With class weights, weighted losses are ranked and their plain mean is taken.
    FedDrive's hard negative mining takes a fraction of all pixels, including ignored ones with loss
    0, so that its loss shrinks as the ignored area grows; this one counts valid pixels only.
    """
    losses_NHW = functional.cross_entropy(
        logits_NCHW, labels_NHW, weight=class_weights_C, ignore_index=IGNORE, reduction="none"
    )
    losses_V = losses_NHW[labels_NHW != IGNORE]
    if losses_V.numel() == 0:
        return _zero(logits_NCHW)
    return losses_V.topk(max(1, int(fraction * losses_V.numel())), sorted=False).values.mean()


def focal(
    logits_NCHW: Tensor,
    labels_NHW: Tensor,
    gamma: float,
    class_weights_C: Tensor | None = None,
) -> Tensor:
    """Focal loss (Lin et al. 2017, arXiv 1708.02002, equation 5), mean over valid pixels.

    -w (1 - p)^gamma log p per pixel; with class weights, divided by the sum of the weights.
    """
    log_p_NHW = -functional.cross_entropy(
        logits_NCHW, labels_NHW, ignore_index=IGNORE, reduction="none"
    )
    valid_NHW = labels_NHW != IGNORE
    log_p_V = log_p_NHW[valid_NHW]
    if log_p_V.numel() == 0:
        return _zero(logits_NCHW)
    # expm1 keeps 1 - p exact where p is near 1. Clamp it above 0, since for gamma < 1 the slope of
    # x ** gamma at 0 is infinite and a pixel that is already certain would give NaN gradients.
    misses_V = (-torch.expm1(log_p_V)).clamp(min=torch.finfo(log_p_V.dtype).tiny)
    losses_V = -(misses_V**gamma) * log_p_V
    if class_weights_C is None:
        return losses_V.mean()
    weights_V = class_weights_C[labels_NHW[valid_NHW]]
    return (weights_V * losses_V).sum() / weights_V.sum()


def dice(logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes in the batch's labels.

    Sums run over the valid pixels of the whole batch (Milletari et al. 2016, arXiv 1606.04797,
    section 3, without squares and without smoothing).
    """
    valid_NHW = labels_NHW != IGNORE
    if not bool(valid_NHW.any()):
        return _zero(logits_NCHW)
    probs_NCHW = logits_NCHW.softmax(dim=1)
    # Mask ignored pixels by multiplication: selecting the valid ones from (N, C, H, W) costs twice
    # as much on a CPU, mostly in the gradient.
    ids_NHW = labels_NHW.where(valid_NHW, 0)
    own_NHW = probs_NCHW.gather(1, ids_NHW.unsqueeze(1)).squeeze(1) * valid_NHW
    own_P = own_NHW.flatten().to(_wide(own_NHW))
    overlap_C = own_P.new_zeros(probs_NCHW.shape[1]).index_add(0, ids_NHW.flatten(), own_P)
    mass_C = torch.einsum("nchw,nhw->c", probs_NCHW, valid_NHW.to(probs_NCHW.dtype))
    counts_C = torch.bincount(labels_NHW[valid_NHW], minlength=probs_NCHW.shape[1])
    # Select before dividing: a class masked out by a calibration has a mass of exactly 0, and the
    # gradient of 0 / 0 would be NaN even if the class were removed afterwards.
    shown_C = counts_C > 0
    dice_K = 2 * overlap_C[shown_C] / (mass_C[shown_C] + counts_C[shown_C])
    return (1 - dice_K.mean()).to(probs_NCHW.dtype)


def lovasz(logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
    """Lovász-softmax, averaged over the classes in the batch's labels.

    Berman et al. 2018, arXiv 1705.08790, equation 11, with the batch's valid pixels as one image.
    """
    valid_NHW = labels_NHW != IGNORE
    if not bool(valid_NHW.any()):
        return _zero(logits_NCHW)
    probs_NCHW = logits_NCHW.softmax(dim=1)
    losses = []
    for c in torch.unique(labels_NHW[valid_NHW]).tolist():
        target_NHW = (labels_NHW == c).to(probs_NCHW.dtype)
        # An ignored pixel has error 0 in the background: it sorts last and adds nothing.
        errors_NHW = (target_NHW - probs_NCHW[:, c]).abs() * valid_NHW
        errors_P, target_P = errors_NHW.flatten(), target_NHW.flatten()
        losses.append(torch.dot(errors_P, _lovasz_gradient(errors_P.detach(), target_P)))
    return torch.stack(losses).mean()


def entropy(logits_NCHW: Tensor, labels_NHW: Tensor, weight: float) -> Tensor:
    """Negative entropy of the predictions, weight x sum p log p, mean over valid pixels.

    It is smallest where all classes are equally likely: a positive weight keeps predictions from
    becoming overconfident. Kou et al. 2025, arXiv 2505.00318.
    """
    valid_NHW = labels_NHW != IGNORE
    if not bool(valid_NHW.any()):
        return _zero(logits_NCHW)
    logs_NCHW = logits_NCHW.log_softmax(dim=1)
    sums_NHW = (logs_NCHW.exp() * logs_NCHW).sum(dim=1) * valid_NHW
    return weight * sums_NHW.sum() / valid_NHW.sum()


def _lovasz_gradient(errors_P: Tensor, target_P: Tensor) -> Tensor:
    """Return the gradient of the Lovász extension of the Jaccard loss (Algorithm 1), by pixel."""
    order_P = _descending(errors_P)
    sorted_P = target_P[order_P].to(_wide(target_P))
    positives = sorted_P.sum()
    jaccard_P = 1 - (positives - sorted_P.cumsum(0)) / (positives + (1 - sorted_P).cumsum(0))
    steps_P = jaccard_P.diff(prepend=jaccard_P.new_zeros(1)).to(errors_P.dtype)
    return torch.empty_like(errors_P).scatter_(0, order_P, steps_P)


def _descending(values_P: Tensor) -> Tensor:
    if values_P.device.type != "cpu":
        return values_P.argsort(descending=True)
    # numpy sorts with vector instructions, several times faster than torch on a CPU.
    return torch.from_numpy(np.argsort(-values_P.numpy()))


def _wide(values: Tensor) -> torch.dtype:
    """Return the type for summing millions of pixels: float32 sums lose their last digits."""
    return torch.float32 if values.device.type == "mps" else torch.float64  # MPS has no float64


def _zero(logits_NCHW: Tensor) -> Tensor:
    """Return a zero attached to the graph of the logits; never NaN, even if they are."""
    return logits_NCHW[:0].sum()


LOSSES: dict[str, Callable[[TrainingConfig, Tensor | None], Loss]] = {
    "ce": lambda t, w: lambda x, y: cross_entropy(x, y, w),
    "ohem": lambda t, w: lambda x, y: ohem(x, y, t.ohem_fraction, w),
    "focal": lambda t, w: lambda x, y: focal(x, y, t.focal_gamma, w),
    "dice": lambda t, w: dice,
    "lovasz": lambda t, w: lovasz,
    "ohem_feddrive": lambda t, w: lambda x, y: ohem_feddrive(x, y, t.ohem_fraction, w),
    "ohem_fedseg": lambda t, w: lambda x, y: ohem_fedseg(x, y, w),
    "entropy": lambda t, w: lambda x, y: entropy(x, y, t.entropy.weight),
}


def check_loss_name(name: str) -> list[str]:
    """Split a loss name such as "ce+dice"; raise ConfigError for an unknown part."""
    parts = [part.strip() for part in name.split("+")]
    for part in parts:
        if part not in LOSSES:
            raise unknown_name("loss", part, LOSSES, where="training.loss")
    return parts


def build_loss(
    training: TrainingConfig, class_weights_C: Tensor | None = None, *, check: bool = True
) -> Loss:
    """Build the loss that an experiment names, a sum of named losses.

    Logits smaller than the labels are resized (see `resize`). Labels may have any integer type. An
    id that is neither a class nor ignored raises DataError; set `check=False` if there cannot be
    one, because the check has to wait for a GPU.
    """
    names = check_loss_name(training.loss)
    parts = [LOSSES[name](training, class_weights_C) for name in names]

    def loss(logits_NCHW: Tensor, labels_NHW: Tensor) -> Tensor:
        if check:
            require_ids(labels_NHW, logits_NCHW.shape[1])
        labels_NHW = labels_NHW.long()
        if names == ["ce"] and can_fuse(logits_NCHW, labels_NHW):
            return resized_cross_entropy(logits_NCHW, labels_NHW, class_weights_C)
        height, width = labels_NHW.shape[-2:]
        logits_NCHW = resized(logits_NCHW, (height, width))
        values = [part(logits_NCHW, labels_NHW) for part in parts]
        return values[0] if len(values) == 1 else torch.stack(values).sum()

    return loss


def require_ids(labels_NHW: Tensor, num_classes: int) -> None:
    """Refuse label ids that are neither a class nor ignored.

    Raises:
        DataError: with the ids.
    """
    wrong_NHW = ((labels_NHW >= num_classes) | (labels_NHW < 0)) & (labels_NHW != IGNORE)
    if bool(wrong_NHW.any()):
        raise DataError(
            "label ids outside the label space reached the loss",
            got=torch.unique(labels_NHW[wrong_NHW]).tolist(),
            expected=f"0..{num_classes - 1} or {IGNORE}",
            cure="Map raw ids to train ids where the data are read",
        )


def segmentation_loss(
    outputs: Tensor | Sequence[Tensor], labels_NHW: Tensor, loss: Loss, aux_weight: float
) -> Tensor:
    """Return the loss of the main output plus `aux_weight` times that of each auxiliary output."""
    main, *auxiliary = [outputs] if isinstance(outputs, Tensor) else outputs
    total = loss(main, labels_NHW)
    for output in auxiliary if aux_weight > 0 else ():
        total = total + aux_weight * loss(output, labels_NHW)
    return total


def class_weights(histogram_C: npt.NDArray[np.int64], num_classes: int) -> Tensor:
    """Return weights 1 / ln(1.1 + share) per class, scaled to mean 1 over the classes that occur.

    After ENet (Paszke et al. 2016, arXiv 1606.02147, section 5.2, with 1.1 instead of 1.02). A
    class without pixels gets weight 1: it never enters the loss, so any number would do.

    >>> class_weights(np.array([50, 50, 0]), 3).tolist()
    [1.0, 1.0, 1.0]
    """
    assert histogram_C.shape == (num_classes,)
    shares_C = histogram_C / max(int(histogram_C.sum()), 1)
    weights_C = 1.0 / np.log(1.1 + shares_C)
    present_C = histogram_C > 0
    if not present_C.any():
        return torch.ones(num_classes)
    weights_C = np.where(present_C, weights_C / weights_C[present_C].mean(), 1.0)
    return torch.from_numpy(weights_C.astype(np.float32))
