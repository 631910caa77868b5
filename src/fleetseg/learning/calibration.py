"""Logits calibrated in training by how much a client has of each class.

A calibration adds a constant to each class's logit before the loss is taken, whatever the loss is;
predictions are made without it. What a client has are labelled pixels. A class of which it has none
is masked out: its probability is 0 in this client's loss, so that nothing is learnt about it here.
(FedRS, Li and Zhan, KDD 2021, scales the logits of such classes instead.) Suffix C: classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.learning.losses import Loss

ABSENT = -1e4
"""Added to the logits of classes that a client has not: e^-10000 is 0, and 0 times it is no NaN."""
Floats_C = npt.NDArray[np.float64]


def _logit_adjustment(pixels_C: Floats_C, pixels_per_image: int, tau: float) -> Floats_C:
    """Add tau log pi_c, with pi the client's own shares of pixels.

    The logit-adjusted softmax cross-entropy of Menon et al., ICLR 2021, arXiv 2007.07314.
    """
    return np.asarray(tau * np.log(pixels_C / pixels_C.sum()))


def _fedlc(pixels_C: Floats_C, pixels_per_image: int, tau: float) -> Floats_C:
    """Take off tau n_c^(-1/4): FedLC, Zhang et al., ICML 2022, arXiv 2209.00189.

    There n_c are images. Here they are images' worth of pixels: of pixels themselves, the margins
    of all classes would be next to nothing.
    """
    return np.asarray(-tau * (pixels_C / pixels_per_image) ** -0.25)


def _restricted(pixels_C: Floats_C, pixels_per_image: int, tau: float) -> Floats_C:
    return np.zeros_like(pixels_C)


Calibration = Callable[[Floats_C, int, float], Floats_C]
CALIBRATIONS: dict[str, Calibration | None] = {
    "none": None,
    "logit adjustment": _logit_adjustment,
    "fedlc": _fedlc,
    "restricted softmax": _restricted,
}
"""(pixels of the classes that a client has, all above 0; pixels of an image; tau) -> what is added.

The table of `training.calibration`.
"""


def logit_shift(
    name: str, pixels_C: Sequence[int], size_hw: tuple[int, int], tau: float
) -> Tensor | None:
    """Return what is added to each class's logits, (C,); None if nothing is.

    Args:
        name: in CALIBRATIONS.
        pixels_C: labelled pixels of each class; of one class at least, there are some.
        size_hw: of an image.
        tau: strength.
    """
    calibration = CALIBRATIONS[name]
    if calibration is None:
        return None
    counts_C = np.array(pixels_C, dtype=np.float64)
    has_C = counts_C > 0
    assert has_C.any()
    shift_C = np.full(len(counts_C), ABSENT)
    shift_C[has_C] = calibration(counts_C[has_C], size_hw[0] * size_hw[1], tau)
    return torch.from_numpy(shift_C.astype(np.float32))


def calibrated(loss: Loss, shift_C: Tensor) -> Loss:
    """Make a loss of calibrated logits.

    They are shifted at the network's own resolution: resizing takes means, which shift alike.
    """
    shift_1C11 = shift_C.view(1, -1, 1, 1)
    return lambda logits_NCHW, labels_NHW: loss(logits_NCHW.float() + shift_1C11, labels_NHW)
