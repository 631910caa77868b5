"""The record of one sample, and the interface that every data source provides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import LabelSpace

Image_HWC = npt.NDArray[np.uint8]
"""RGB, 0-255, shape (height, width, 3)."""
Label_HW = npt.NDArray[np.uint8]
"""Train ids of a label space, 255 = ignore, shape (height, width)."""


class Pairs(Protocol):
    """A sized, indexable collection of (image_HWC, label_HW) pairs: all that training needs.

    A list of tuples qualifies, as does any class with these two methods.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]: ...


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs to score a model on, and the domain of each, in the same order."""

    pairs: Pairs = ()
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.pairs) == len(self.domains), "one domain per pair"

    def __len__(self) -> int:
        return len(self.domains)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its label map, and the facts that partitions and scores group by.

    `image` and `label` are paths, or recipes if the source generates its own images.
    `label` is None for an unlabelled sample; a path that does not exist makes a bad sample.
    """

    id: str  # unique across data sets: "<dataset>/<split>/<stem>"
    dataset: str
    split: str
    image: str
    label: str | None
    domain: str  # groups images that look alike, for scores per domain
    city: str = ""
    sequence: str = ""  # the drive
    frame: int = 0  # order within the drive
    condition: str = ""  # weather or time of day, if known
    vehicle: str = ""  # which car or camera, if there are several


@dataclass(frozen=True)
class Source:
    """An opened data set: its samples in a fixed order, and how to read one of them.

    `read(sample)` gives (image_HWC, label_HW or None) at the files' own resolution, in `space`.
    It raises BadSample (file, what is wrong, cure) for a truncated or wrong-type image, a size
    mismatch, label ids outside the space, or a missing label. An all-ignore label is bad too.
    `digest(sample)` gives the hex SHA-256 of the image's and the label's content ("" without one).
    """

    name: str
    space: LabelSpace
    samples: tuple[Sample, ...]
    read: Callable[[Sample], tuple[Image_HWC, Label_HW | None]] = field(repr=False)
    digest: Callable[[Sample], tuple[str, str]] = field(repr=False)
    notes: tuple[str, ...] = ()  # what `data check` reports about other files beside the samples
