"""Expected calibration error: how far confidences are from the frequency of being right.

Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015);
bins of equal width, each open below and closed above, as in Guo et al., "On Calibration of Modern
Neural Networks" (2017), https://arxiv.org/abs/1706.04599. Bins hold integer sums, which add over
images and vehicles to the same error in any order.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import IGNORE
from fleetseg.judging.counts import ONE, Bins_3B


def bins_of(
    confidence_HW: npt.NDArray[np.float32],
    pred_HW: npt.NDArray[np.uint8],
    label_HW: npt.NDArray[np.uint8],
    num_bins: int,
) -> Bins_3B:
    """Sort an image's labelled pixels into bins by confidence, which is in [0, 1]."""
    counted_HW = label_HW != IGNORE
    confidence_P = confidence_HW[counted_HW].astype(np.float64)
    right_P = pred_HW[counted_HW] == label_HW[counted_HW]
    bin_P = np.clip(np.ceil(confidence_P * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    units_P = np.rint(confidence_P * ONE)  # sums of an image stay below 2^53: exact as float64
    return np.stack([
        np.bincount(bin_P, minlength=num_bins),
        np.bincount(bin_P[right_P], minlength=num_bins),
        np.bincount(bin_P, weights=units_P, minlength=num_bins).astype(np.int64),
    ]).astype(np.int64)  # fmt: skip


def expected_calibration_error(bins_3B: Bins_3B) -> float:
    """Return the ECE in [0, 1]; NaN where no pixel is counted.

    >>> expected_calibration_error(np.array([[4], [3], [4 * ONE // 2]]))
    0.25
    """
    pixels_B, right_B, units_B = bins_3B.astype(np.float64)
    if not pixels_B.sum():
        return math.nan
    return float(np.abs(right_B - units_B / ONE).sum() / pixels_B.sum())
