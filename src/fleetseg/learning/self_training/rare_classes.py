"""Rare class sampling: train more often on images in which the teacher sees rare classes.

With pseudo-labels instead of labels: DAFormer, Hoyer, Dai, Van Gool, CVPR 2022, arXiv 2111.14887,
equations 7 and 8. Suffixes: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Image_HWC, Label_HW, Pairs

Counts_NC = npt.NDArray[np.int64]
Floats_C = npt.NDArray[np.float64]
_LEAST = 0.001
"""Least share of an image's pixels for the image to show a class."""


def class_chances(counts_C: npt.NDArray[np.int64], temperature: float) -> Floats_C:
    """Return the probability of each class, proportional to exp((1 - share of the pixels) / T).

    It is 0 for a class without pixels; at least one class must have some.

    >>> class_chances(np.array([75, 25, 0]), 0.5).round(3)
    array([0.269, 0.731, 0.   ])
    """
    shares_C = counts_C / counts_C.sum()
    exponents_C = np.where(counts_C > 0, (1 - shares_C) / temperature, -np.inf)
    weights_C = np.exp(exponents_C - exponents_C.max())
    chances_C: Floats_C = weights_C / weights_C.sum()
    return chances_C


def drawn_by_class(
    counts_NC: Counts_NC, pixels: int, temperature: float, generator: np.random.Generator
) -> list[int]:
    """Draw as many images as there are: first a class by its chance, then an image that shows it.

    If no image shows any class, each is taken once. `pixels` is the number of pixels of an image.
    """
    shown_NC = np.where(counts_NC >= max(1.0, _LEAST * pixels), counts_NC, 0)
    numbers_N2 = generator.random((len(counts_NC), 2))
    if not shown_NC.any():
        return list(range(len(counts_NC)))
    ends_C = class_chances(shown_NC.sum(axis=0), temperature).cumsum()
    chosen = []
    for of_class, of_image in numbers_N2:
        last = int(np.flatnonzero(ends_C < ends_C[-1]).size)  # the last class with a nonzero chance
        c = min(int(np.searchsorted(ends_C, of_class, side="right")), last)
        showing = np.flatnonzero(shown_NC[:, c])
        chosen.append(int(showing[int(of_image * len(showing))]))
    return chosen


@dataclass(frozen=True)
class Drawn:
    """The drawn samples in place of all, possibly repeated."""

    pairs: Pairs
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        return self.pairs[self.chosen[index]]
