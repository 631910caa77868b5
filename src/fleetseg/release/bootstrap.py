"""Uncertainty of a difference between two models scored on the same frames: a paired bootstrap.

Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13: frames (or whole drives,
or vehicles) are drawn with replacement, their counts are summed, and the ratio is taken of the
sums; the percentiles of many such differences are the interval.

Suffixes: S draws, U units, R rows, C classes; 3 = right, true, predicted pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg import rng
from fleetseg.judging.counts import Conf_RCC

Parts_3C = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_AT_A_TIME = 256  # draws: bounds the memory


@dataclass(frozen=True)
class Difference:
    """Candidate minus current model, for an IoU or a mean IoU."""

    current: float
    candidate: float
    low: float | None  # of the interval; None if there is only one unit
    high: float | None
    units: int  # number of units to draw from

    @property
    def change(self) -> float:
        """Negative where the candidate is worse."""
        return self.candidate - self.current


def difference(
    current_RCC: Conf_RCC,
    candidate_RCC: Conf_RCC,
    units: Sequence[str],
    *,
    class_id: int | None,
    confidence: float,
    resamples: int,
    seed: int,
) -> Difference | None:
    """Compare the IoU of a class, or the mean IoU, of two models on the same rows.

    Means are over the classes that occur in the truth. For a class that does not occur, None is
    returned. Rows of one unit are drawn together.
    """
    current_U3C, candidate_U3C = unit_parts(current_RCC, units), unit_parts(candidate_RCC, units)
    both = [_ratio(parts.sum(axis=0), class_id) for parts in (current_U3C, candidate_U3C)]
    if np.isnan(both).any():
        return None
    low = high = None
    if len(current_U3C) > 1:
        changes_S = resampled(current_U3C, candidate_U3C, class_id, resamples, seed)
        tail = 100 * (1 - confidence) / 2
        low, high = (float(q) for q in np.nanpercentile(changes_S, [tail, 100 - tail]))
    return Difference(float(both[0]), float(both[1]), low, high, len(current_U3C))


def unit_parts(conf_RCC: Conf_RCC, units: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return right, true and predicted pixels of each unit and class, (U, 3, C)."""
    hits_RC = np.diagonal(conf_RCC, axis1=1, axis2=2)
    parts_R3C = np.stack([hits_RC, conf_RCC.sum(axis=2), conf_RCC.sum(axis=1)], axis=1)
    names = sorted(set(units))
    place = {name: number for number, name in enumerate(names)}
    parts_U3C = np.zeros((len(names), *parts_R3C.shape[1:]), np.int64)
    np.add.at(parts_U3C, [place[name] for name in units], parts_R3C)
    return parts_U3C


def draws(num_units: int, resamples: int, seed: int) -> npt.NDArray[np.int64]:
    """Return how often each unit is drawn in each resample, (S, U); every row sums to U."""
    generator = rng.generator(seed, num_units, "", "release bootstrap")
    return generator.multinomial(num_units, np.full(num_units, 1 / num_units), size=resamples)


def resampled(
    current_U3C: npt.NDArray[np.int64],
    candidate_U3C: npt.NDArray[np.int64],
    class_id: int | None,
    resamples: int,
    seed: int,
) -> Floats:
    """Return the difference in each resample; NaN where the class was not drawn."""
    weights_SU = draws(len(current_U3C), resamples, seed)
    both = [parts.reshape(len(parts), -1).astype(np.float64) for parts in
            (current_U3C, candidate_U3C)]  # fmt: skip
    shape = current_U3C.shape[1:]
    changes = []
    for start in range(0, resamples, _AT_A_TIME):
        some_SU = weights_SU[start : start + _AT_A_TIME].astype(np.float64)
        # Sums of counts stay below 2^53, so they are exact.
        ratios = [_ratio((some_SU @ parts).reshape(-1, *shape), class_id) for parts in both]
        changes.append(ratios[1] - ratios[0])
    return np.concatenate(changes)


def _ratio(parts: npt.NDArray[np.int64] | Floats, class_id: int | None) -> Floats:
    """Return the IoU of a class, or the mean over the classes that occur, of (..., 3, C)."""
    hits, true, predicted = (parts[..., k, :].astype(np.float64) for k in range(3))
    occurs = true > 0
    iou = np.full(hits.shape, np.nan)
    np.divide(hits, true + predicted - hits, out=iou, where=occurs)
    if class_id is not None:
        return np.asarray(iou[..., class_id])
    count = occurs.sum(axis=-1)
    total = np.where(occurs, iou, 0).sum(axis=-1)
    mean = np.full(count.shape, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean
