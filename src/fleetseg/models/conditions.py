"""Classify an image's condition, weather or time of day, by the nearest of several means.

15 facts are measured on a downscaled image (tones, contrasts, colours and edges of its upper,
middle and lower third). A condition is represented by the mean facts of its images; all conditions
share one covariance, which defines distances (linear discriminant analysis with equal priors).

Suffixes: K conditions, F facts, N images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.data.store.decoding import resized_image
from fleetseg.errors import DataError

Floats = npt.NDArray[np.float64]
NUM_FACTS = 15
_SIZE_HW = (48, 64)
_SHRINK = 0.1  # of correlations between facts, which few images estimate poorly
_LEAST_VARIANCE = 1e-6


def image_facts(image_HWC: npt.NDArray[np.uint8]) -> Floats:
    """Return the 15 facts (F) of an RGB image.

    For each third, from the top: mean and standard deviation of the luma, mean of red minus blue,
    mean saturation (highest minus lowest channel), logarithm of the mean step between neighbours.

    They are measured at 48 x 64 pixels, so that the camera's resolution does not matter.
    """
    small_HWC = resized_image(image_HWC, _SIZE_HW).astype(np.float32) / 255
    facts: list[float] = []
    for part_HWC in np.split(small_HWC, 3):
        luma_HW = part_HWC @ np.array([0.299, 0.587, 0.114], np.float32)
        steps = np.abs(np.diff(luma_HW, axis=1)).mean(dtype=np.float64)
        facts += [
            float(luma_HW.mean(dtype=np.float64)),
            float(luma_HW.std(dtype=np.float64)),
            float((part_HWC[..., 0] - part_HWC[..., 2]).mean(dtype=np.float64)),
            float(np.ptp(part_HWC, axis=2).mean(dtype=np.float64)),
            float(np.log(steps + 1e-3)),
        ]
    return np.array(facts)


@dataclass(frozen=True, eq=False)
class ConditionClassifier:
    """Classifies which of K conditions an image shows, by its pixels alone."""

    names: tuple[str, ...]
    means_KF: Floats
    precision_FF: Floats  # inverse of the covariance within conditions

    def choose(self, image_HWC: npt.NDArray[np.uint8]) -> str:
        """Return the name of the nearest condition; on a tie, the first."""
        off_KF = image_facts(image_HWC) - self.means_KF
        distances_K = ((off_KF @ self.precision_FF) * off_KF).sum(axis=1)
        return self.names[int(distances_K.argmin())]

    def among(self, names: Collection[str]) -> ConditionClassifier:
        """Return the classifier restricted to some of the conditions."""
        kept = [k for k, name in enumerate(self.names) if name in names]
        return ConditionClassifier(
            tuple(self.names[k] for k in kept), self.means_KF[kept], self.precision_FF
        )


def fit_conditions(facts_NF: Mapping[str, Sequence[Floats]]) -> ConditionClassifier:
    """Fit a classifier to the facts of images whose condition is known.

    Raises:
        DataError: fewer than two conditions, or one without an image.
    """
    names = tuple(sorted(facts_NF))
    if len(names) < 2 or not all(len(facts_NF[name]) for name in names):
        raise DataError(
            "cannot fit a classifier: it needs two or more conditions, and images of each",
            got=", ".join(f"{name or 'unnamed'}: {len(facts_NF[name])}" for name in names)
            or "none",
        )
    means_KF = np.stack([np.mean(facts_NF[name], axis=0) for name in names])
    rests_NF = np.concatenate(
        [np.stack(facts_NF[name]) - mean_F for name, mean_F in zip(names, means_KF, strict=True)]
    )
    covariance_FF = rests_NF.T @ rests_NF / max(1, len(rests_NF) - len(names))
    variances_F = np.diag(covariance_FF) + _LEAST_VARIANCE
    covariance_FF = (1 - _SHRINK) * covariance_FF + _SHRINK * np.diag(variances_F)
    covariance_FF[np.diag_indices(len(variances_F))] = variances_F
    return ConditionClassifier(names, means_KF, np.linalg.inv(covariance_FF))
