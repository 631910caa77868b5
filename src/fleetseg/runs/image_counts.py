"""What each frame of the server's sets contributed to the newest score: `image_counts.npz`.

Resampling these frames shows how much a score depends on the choice of frames. They are the
server's own frames; of a vehicle's frames only sums are known.

Suffixes: N frames, C classes; 3 = right, true, predicted pixels.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fleetseg.clients import EvaluationSet
from fleetseg.data.store.cache import Picked
from fleetseg.evaluation.confusion import Conf_CC
from fleetseg.evaluation.predict import OnImage
from fleetseg.files import write_atomic

FILE = "image_counts.npz"
BLOCK = 10
"""Consecutive frames of one drive that are resampled together: they show nearly the same street."""

Counts_N3C = npt.NDArray[np.int64]
Blocks_N = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ImageCounts:
    """Counts of all frames of one scoring, set after set."""

    round: int  # whose model was scored
    parts_N3C: Counts_N3C
    block_N: Blocks_N  # which block a frame belongs to

    @classmethod
    def empty(cls, round_: int, sets: Sequence[EvaluationSet], num_classes: int) -> ImageCounts:
        """Allocate counts for all frames of the server's sets."""
        block_N = blocks(sets)
        return cls(round_, np.zeros((len(block_N), 3, num_classes), np.int64), block_N)

    def listeners(self, sets: Sequence[EvaluationSet]) -> list[OnImage]:
        """Return the callbacks that receive each set's frames as they are scored."""
        starts = np.cumsum([0, *(len(part.scored) for part in sets)])
        return [partial(self._add, int(start)) for start in starts[:-1]]

    def _add(self, start: int, index: int, conf_CC: Conf_CC) -> None:
        parts = np.diag(conf_CC), conf_CC.sum(axis=1), conf_CC.sum(axis=0)
        self.parts_N3C[start + index] = np.stack(parts)

    @property
    def parts_U3C(self) -> npt.NDArray[np.int64]:
        """The counts of each block."""
        parts_U3C = np.zeros((int(self.block_N.max()) + 1, *self.parts_N3C.shape[1:]), np.int64)
        np.add.at(parts_U3C, self.block_N, self.parts_N3C)
        return parts_U3C

    def same_frames(self, other: ImageCounts) -> bool:
        """Say whether two scores were taken on the same frames: equal blocks and equal truths."""
        return np.array_equal(self.block_N, other.block_N) and np.array_equal(
            self.parts_N3C[:, 1], other.parts_N3C[:, 1]
        )


def blocks(sets: Sequence[EvaluationSet]) -> Blocks_N:
    """Number the blocks of all frames: up to `BLOCK` consecutive frames of one drive.

    Where drives are not known, domains take their place.
    """
    found: list[int] = []
    number = 0
    for part in sets:
        for _, same in groupby(_drives(part)):
            count = len(list(same))
            found += [number + k // BLOCK for k in range(count)]
            number += -(-count // BLOCK)
    return np.array(found, np.int64)


def _drives(part: EvaluationSet) -> list[tuple[str, str]]:
    pairs, domains = part.scored.pairs, part.scored.domains
    drives = [each.sequence for each in pairs.samples] if isinstance(pairs, Picked) else []
    return list(zip(domains, drives or [""] * len(domains), strict=True))


def keep_counts(folder: Path, counts: ImageCounts) -> None:
    """Write the counts of the newest score in place of the previous ones."""
    file = io.BytesIO()
    np.savez_compressed(
        file,
        round=np.array(counts.round),
        parts_N3C=counts.parts_N3C,
        block_N=counts.block_N,
    )
    write_atomic(folder / FILE, file.getvalue())


def read_counts(folder: Path) -> ImageCounts | None:
    """Read the counts of a run folder; None if an earlier version made it, or they are damaged."""
    try:
        with np.load(io.BytesIO((folder / FILE).read_bytes()), allow_pickle=False) as file:
            return _checked(int(file["round"]), file["parts_N3C"], file["block_N"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _checked(
    round_: int, parts_N3C: npt.NDArray[np.int64], block_N: npt.NDArray[np.int64]
) -> ImageCounts | None:
    shape, dtypes = parts_N3C.shape, {parts_N3C.dtype, block_N.dtype}
    fits = len(shape) == 3 and shape[1] == 3 and block_N.shape == shape[:1]
    if not fits or dtypes != {np.dtype(np.int64)} or not len(block_N):
        return None
    in_range = block_N.min() >= 0 and block_N.max() < len(block_N) and parts_N3C.min() >= 0
    return ImageCounts(round_, parts_N3C, block_N) if in_range else None
