"""Resizing and cross-entropy in one pass, for training on a CPU.

Full-size logits are 8 or 16 times larger than a network's output, and cross-entropy passes over
them and their gradient ten times: with a small network that is a third of a training step, most of
it spent waiting for memory. Here each band of rows is resized, scored and turned into its gradient
while it is in the cache, and only the small gradient is kept.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fleetseg.data.labels import IGNORE
from fleetseg.learning.resize import interpolation

_BAND = 32  # rows of full-size logits at a time: 11 classes by 320 columns are 450 kB


def can_fuse(logits_NChw: Tensor, labels_NHW: Tensor) -> bool:
    """Return whether `resized_cross_entropy` supports these tensors and is the faster choice."""
    (h, w), (height, width) = logits_NChw.shape[-2:], labels_NHW.shape[-2:]
    return height >= 2 * h and width >= 2 * w and logits_NChw.device.type == "cpu"


def resized_cross_entropy(
    logits_NChw: Tensor, labels_NHW: Tensor, class_weights_C: Tensor | None
) -> Tensor:
    """Weighted mean cross-entropy over valid pixels of bilinearly resized logits.

    The same as `cross_entropy(resized(logits, size), labels, weights)` except for rounding.
    labels_NHW: int64. The loss is 0 if all labels are ignored.
    """
    value: Tensor = _ResizedCrossEntropy.apply(logits_NChw.float(), labels_NHW, class_weights_C)
    return value


class _ResizedCrossEntropy(torch.autograd.Function):
    """The forward pass also computes the gradient, at the size of the logits."""

    @staticmethod
    def forward(
        ctx: Any, logits_NChw: Tensor, labels_NHW: Tensor, class_weights_C: Tensor | None
    ) -> Tensor:
        """Return the loss, and save its gradient."""
        with torch.autocast("cpu", enabled=False):
            losses, weights, gradients = zip(
                *(
                    _one(logits_Chw, labels_HW, class_weights_C)
                    for logits_Chw, labels_HW in zip(logits_NChw, labels_NHW, strict=True)
                ),
                strict=True,
            )
        total = sum(weights) or 1.0  # without a valid pixel, losses and gradients are already 0
        ctx.save_for_backward(torch.stack(gradients).div_(total))
        return logits_NChw.new_tensor(sum(losses) / total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        """Scale the saved gradient."""
        (gradient_NChw,) = ctx.saved_tensors
        return gradient_NChw * outer, None, None


def _one(
    logits_Chw: Tensor, labels_HW: Tensor, class_weights_C: Tensor | None
) -> tuple[float, float, Tensor]:
    """Return one image's summed loss, the sum of its pixels' weights, and the loss's gradient."""
    (h, w), (height, width) = logits_Chw.shape[-2:], labels_HW.shape[-2:]
    rows_Hh, columns_Ww = interpolation(h, height), interpolation(w, width)
    valid_HW = labels_HW != IGNORE
    ids_HW = labels_HW.where(valid_HW, 0)
    weights_HW = valid_HW.float() if class_weights_C is None else class_weights_C[ids_HW] * valid_HW
    wide_ChW = logits_Chw.contiguous() @ columns_Ww.T
    gradient_ChW = torch.zeros_like(wide_ChW)
    loss = 0.0
    for top, stop, first, last in _bands(h, height):
        block = rows_Hh[top:stop, first:last]
        ids, weights = ids_HW[None, top:stop], weights_HW[None, top:stop]
        band = block @ wide_ChW[:, first:last]  # (C, rows of the band, W); modified in place below
        band -= band.amax(0, keepdim=True)
        own = band.gather(0, ids)
        mass = band.exp_().sum(0, keepdim=True)
        loss += float(((mass.log() - own) * weights).sum())
        band *= weights / mass
        band.scatter_add_(0, ids, -weights)
        gradient_ChW[:, first:last] += block.T @ band
    return loss, float(weights_HW.sum()), gradient_ChW @ columns_Ww


@lru_cache(maxsize=32)
def _bands(size_in: int, size_out: int) -> tuple[tuple[int, int, int, int], ...]:
    """Cut the output into bands: (first row, end, first input row needed, end)."""
    needed = interpolation(size_in, size_out) != 0
    bands = []
    for top in range(0, size_out, _BAND):
        stop = min(top + _BAND, size_out)
        used = needed[top:stop].any(0).nonzero().flatten()
        bands.append((top, stop, int(used[0]), int(used[-1]) + 1))
    return tuple(bands)
