"""A model's certainty per pixel: the probability of its class, and the entropy over all classes.

Suffixes: C classes, H x W pixels. Probabilities are the plain softmax of the resized logits: an
uncalibrated network is often overconfident.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fleetseg.evaluation.predict import resized

Certainty = Literal["confidence", "entropy"]
Share_HW = npt.NDArray[np.float32]
"""0 to 1, shape (height, width)."""

# Palettes in which viewers show the values, dark to bright: anchors of matplotlib's viridis and
# inferno, whose lightness increases evenly, also in print and for colour-blind people.
_PALETTES: dict[Certainty, tuple[tuple[int, int, int], ...]] = {
    "confidence": (
        (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
        (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
    ),
    "entropy": (
        (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85),
        (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
    ),
}  # fmt: skip


def certainty(logits_CHW: Tensor, size_hw: tuple[int, int]) -> dict[Certainty, Share_HW]:
    """Return each pixel's largest probability, and its entropy divided by log C, at `size_hw`.

    Both are 0 to 1; the confidence is at least 1 / C. Classes are resized one after another, since
    all classes of a large image do not fit into memory at once.
    """
    top_HW = torch.full(size_hw, -torch.inf, device=logits_CHW.device)
    for class_logits_HW in logits_CHW:
        torch.maximum(top_HW, _at(class_logits_HW, size_hw), out=top_HW)
    sum_HW = torch.zeros_like(top_HW)  # of exp(l - top): the reciprocal of the confidence
    weighted_HW = torch.zeros_like(top_HW)  # of (l - top) exp(l - top)
    for class_logits_HW in logits_CHW:
        below_HW = _at(class_logits_HW, size_hw) - top_HW
        exp_HW = below_HW.exp()
        sum_HW += exp_HW
        weighted_HW += below_HW * exp_HW
    entropy_HW = (sum_HW.log() - weighted_HW / sum_HW) / math.log(max(2, len(logits_CHW)))
    return {
        "confidence": (1 / sum_HW).cpu().numpy(),
        "entropy": entropy_HW.clamp(0, 1).cpu().numpy(),
    }


def _at(class_logits_HW: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return resized(class_logits_HW[None, None].float(), size_hw)[0, 0]


def certainty_image(share_HW: Share_HW, kind: Certainty) -> Image.Image:
    """Return a palette image: pixels are round(255 x share), shown dark to bright."""
    pixels_HW = np.rint(np.nan_to_num(share_HW).clip(0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels_HW).convert("L")
    image.putpalette(_palette(kind).tobytes())
    return image


def _palette(kind: Certainty) -> npt.NDArray[np.uint8]:
    """Return 256 colours interpolated between the anchors, shape (256, 3)."""
    anchors = np.array(_PALETTES[kind], np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, k]) for k in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)
