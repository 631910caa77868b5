"""Training labels that keep only some classes; pixels of all others are erased."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fleetseg.data.labels import ERASED, IGNORE, Table
from fleetseg.data.sample import Image_HWC, Label_HW, Pairs


@dataclass(frozen=True)
class Erased:
    """Pairs whose labels keep the classes in `labelled`; pixels of other classes hold `mark`.

    With ERASED as the mark, an erased pixel (certainly none of those classes) can be distinguished
    from one that the data set itself leaves void (possibly any class). With IGNORE it cannot.
    """

    pairs: Pairs
    labelled: tuple[int, ...]
    mark: int = IGNORE

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        image_HWC, label_HW = self.pairs[index]
        return image_HWC, self._table[label_HW]

    @cached_property
    def _table(self) -> Table:
        table = np.full(256, self.mark, dtype=np.uint8)
        table[list(self.labelled)] = self.labelled
        table[IGNORE] = IGNORE
        return table


def without_marks(label_HW: Label_HW) -> Label_HW:
    """Turn erased pixels into void, for code that does not distinguish the two."""
    return np.where(label_HW == ERASED, np.uint8(IGNORE), label_HW)
