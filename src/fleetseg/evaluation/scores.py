"""Scores computed once, at the end, from one summed confusion matrix.

Convention (as in Cityscapes' own evaluation): pixels whose truth is ignored are not counted; the
IoU of a class is TP / (TP + FP + FN) over the whole data set; a class with an empty union has no
IoU and is left out of the mean, by name, while a class that is predicted but never true has IoU 0.
The mean of such ratios over images or clients is a different, wrong number and is never used.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import LabelSpace
from fleetseg.errors import DataError
from fleetseg.evaluation.confusion import Conf_CC

Ratios_C = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a summed confusion matrix; ratios are 0 to 1, NaN if there is nothing to score.

    Source: M. Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010,
    section 4.3 (IoU); J. Long et al., "Fully Convolutional Networks for Semantic Segmentation",
    CVPR 2015, section 5 (pixel accuracy, mean accuracy, mean IoU).
    """

    space: LabelSpace
    conf_CC: Conf_CC
    iou_C: Ratios_C  # TP / (TP + FP + FN)
    accuracy_C: Ratios_C  # TP / (TP + FN): the share of a class's true pixels that is found

    @classmethod
    def of(cls, conf_CC: npt.NDArray[np.integer], space: LabelSpace) -> Scores:
        """Compute the scores of a summed confusion matrix (rows = truth) of a label space.

        >>> from fleetseg.data.labels import LabelSpace
        >>> space = LabelSpace("two", ("road", "car"), ((0, 0, 0), (9, 9, 9)), ("car",))
        >>> Scores.of(np.array([[6, 2], [0, 2]]), space).iou_C.tolist()
        [0.75, 0.5]

        Raises:
            DataError: the matrix does not fit the space or holds negative counts.
        """
        expected = (space.num_classes, space.num_classes)
        if conf_CC.shape != expected:
            raise DataError(
                f"confusion matrix does not fit label space '{space.name}'",
                got=f"shape {conf_CC.shape}",
                expected=f"{expected}",
            )
        if conf_CC.min() < 0:
            raise DataError("confusion matrix holds negative counts", got=int(conf_CC.min()))
        counts_CC: Conf_CC = conf_CC.astype(np.int64)
        hits_C = np.diag(counts_CC)
        true_C, predicted_C = counts_CC.sum(axis=1), counts_CC.sum(axis=0)
        return cls(
            space=space,
            conf_CC=counts_CC,
            iou_C=_ratio(hits_C, true_C + predicted_C - hits_C),
            accuracy_C=_ratio(hits_C, true_C),
        )

    @property
    def num_pixels(self) -> int:
        """Number of scored pixels: those whose truth is a class."""
        return int(self.conf_CC.sum())

    @property
    def miou(self) -> float:
        """Mean IoU over the classes with a union; NaN if there is none."""
        return _mean(self.iou_C)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Classes with an empty union: neither true nor predicted anywhere."""
        return _absent(self.space.classes, self.iou_C)

    @property
    def critical_miou(self) -> float:
        """Mean IoU over the safety-critical classes with a union; NaN if there is none."""
        return _mean(self.iou_C[self._critical])

    @property
    def pixel_accuracy(self) -> float:
        """Share of the scored pixels that are right; NaN if none is scored."""
        return float(_ratio(np.trace(self.conf_CC), self.conf_CC.sum()))

    @property
    def mean_accuracy(self) -> float:
        """Mean, over the classes that occur in the truth, of the share of their pixels found."""
        return _mean(self.accuracy_C)

    @property
    def convention(self) -> str:
        """How `miou` is computed, for printing with it."""
        return _convention("mIoU", self.space.num_classes, self.skipped)

    @property
    def critical_convention(self) -> str:
        """How `critical_miou` is computed, for printing with it."""
        critical = self.space.critical
        return _convention(
            f"critical mIoU over {', '.join(critical)}" if critical else "critical mIoU",
            len(critical),
            tuple(name for name in critical if name in self.skipped),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, None where there is nothing to score."""
        classes = self.space.classes
        return {
            "miou": _or_none(self.miou),
            "critical_miou": _or_none(self.critical_miou),
            "pixel_accuracy": _or_none(self.pixel_accuracy),
            "mean_accuracy": _or_none(self.mean_accuracy),
            "iou": {name: _or_none(iou) for name, iou in zip(classes, self.iou_C, strict=True)},
            "skipped": list(self.skipped),
            "pixels": self.num_pixels,
            "convention": self.convention,
            "confusion": self.conf_CC.tolist(),  # rows = truth: counts add, ratios do not
        }

    @property
    def _critical(self) -> list[int]:
        return [self.space.classes.index(name) for name in self.space.critical]


def score_domains(conf_by_domain: Mapping[str, Conf_CC], space: LabelSpace) -> dict[str, Scores]:
    """Score each domain's (or client's, or side's) own summed matrix, in sorted order."""
    return {domain: Scores.of(conf_by_domain[domain], space) for domain in sorted(conf_by_domain)}


def seen_unseen(conf_by_domain: Mapping[str, Conf_CC], seen: Collection[str]) -> dict[str, Conf_CC]:
    """Sum the matrices of the domains trained on ("seen") and of the others ("unseen").

    A side without a domain is left out.
    """
    sides: dict[str, dict[str, Conf_CC]] = {"seen": {}, "unseen": {}}
    for domain, conf_CC in conf_by_domain.items():
        sides["seen" if domain in seen else "unseen"][domain] = conf_CC
    return {side: sum_confs(confs) for side, confs in sides.items() if confs}


def sum_confs(conf_by_domain: Mapping[str, Conf_CC]) -> Conf_CC:
    """Sum the matrices of all domains into one.

    Raises:
        DataError: there is nothing to sum.
    """
    if not conf_by_domain:
        raise DataError("nothing to score", got="0 confusion matrices", expected="at least one")
    total: Conf_CC = np.sum([*conf_by_domain.values()], axis=0, dtype=np.int64)
    return total


def add_up(parts: Iterable[Mapping[str, Conf_CC]]) -> dict[str, Conf_CC]:
    """Sum several parties' matrices domain by domain (clients, evaluation sets)."""
    total: dict[str, Conf_CC] = {}
    for conf_by_domain in parts:
        for domain, conf_CC in conf_by_domain.items():
            total[domain] = total[domain] + conf_CC if domain in total else conf_CC.copy()
    return total


def _ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Ratios_C:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio: Ratios_C = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean(ratios: Ratios_C) -> float:
    rated = ratios[~np.isnan(ratios)]
    return float(rated.mean()) if rated.size else math.nan


def _absent(names: Iterable[str], ratios: Ratios_C) -> tuple[str, ...]:
    return tuple(name for name, ratio in zip(names, ratios, strict=True) if math.isnan(ratio))


def _convention(score: str, num_classes: int, skipped: Collection[str]) -> str:
    classes = "1 class" if num_classes == 1 else f"{num_classes} classes"
    without = ", ".join(skipped) or "none"
    return (
        f"{score} ({classes}, dataset-level, at label resolution; "
        f"classes with empty union skipped: {without})"
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
