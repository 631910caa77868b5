"""Calibration of logits in training by a client's class frequencies.

A calibration adds a constant to each class's logit before any loss is computed; predictions are
made without it. Frequencies are counted in labelled pixels. A class without pixels on a client is
masked out: its probability is 0 in this client's loss, so the client learns nothing about it.
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
"""Added to the logits of a client's absent classes: e^-10000 is 0, and 0 times it is not NaN."""
Floats_C = npt.NDArray[np.float64]


def _logit_adjustment(pixels_C: Floats_C, pixels_per_image: int, tau: float) -> Floats_C:
    """Add tau log pi_c, where pi are the client's own shares of pixels.

    The logit-adjusted softmax cross-entropy of Menon et al., ICLR 2021, arXiv 2007.07314.
    """
    return np.asarray(tau * np.log(pixels_C / pixels_C.sum()))


def _fedlc(pixels_C: Floats_C, pixels_per_image: int, tau: float) -> Floats_C:
    """Subtract tau n_c^(-1/4): FedLC, Zhang et al., ICML 2022, arXiv 2209.00189.

    There n_c counts images. Here it counts pixels in units of images: counted in single pixels, the
    margins of all classes would be close to zero.
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
"""(pixels of the client's classes, all above 0; pixels per image; tau) -> constants to add.

The table of `training.calibration`.
"""


def logit_shift(
    name: str, pixels_C: Sequence[int], size_hw: tuple[int, int], tau: float
) -> Tensor | None:
    """Return the constants to add to each class's logits, (C,); None for no calibration.

    Args:
        name: a key of CALIBRATIONS.
        pixels_C: labelled pixels of each class; not all zero.
        size_hw: size of an image.
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
    """Return the loss applied to calibrated logits.

    Logits are shifted at the network's own resolution: resizing averages, which keeps the shift.
    """
    shift_1C11 = shift_C.view(1, -1, 1, 1)
    return lambda logits_NCHW, labels_NHW: loss(logits_NCHW.float() + shift_1C11, labels_NHW)
