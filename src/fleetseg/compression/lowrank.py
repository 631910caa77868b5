"""Low-rank compression: each tensor of a change as a product of thin matrices.

PowerSGD, Vogels, Karimireddy, Jaggi 2019, arXiv 1905.13727: a tensor as a matrix M (its first
dimension, all others) becomes P Q^T of rank r by power iteration. The paper does one iteration from
the Q of the previous step; here a client may be absent for many rounds, so there are two, from a
random start, which needs no memory. If P and Q together are not smaller, the tensor is sent whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fleetseg.federation.tensors import Layout

Floats = npt.NDArray[np.float32]
_ITERATIONS = 2


@dataclass(frozen=True)
class Piece:
    """A trainable tensor and how it is sent: as factors of some rank, or whole (rank 0)."""

    start: int  # offset in the trainable values
    rows: int
    columns: int
    rank: int

    @property
    def size(self) -> int:
        """Number of values of the tensor."""
        return self.rows * self.columns

    @property
    def num_sent(self) -> int:
        """Number of values sent for it."""
        return self.rank * (self.rows + self.columns) or self.size

    @property
    def groups(self) -> Sequence[int]:
        """Sizes of groups with a common scale: each column of P and of Q, or the whole tensor."""
        return [self.rows] * self.rank + [self.columns] * self.rank or [self.size]


def pieces_of(layout: Layout, rank: int) -> tuple[Piece, ...]:
    """Return how each trainable tensor is sent."""
    pieces = []
    for entry in layout.floats:
        if entry.kind != "trainable" or not entry.size:
            continue
        rows = entry.shape[0] if len(entry.shape) > 1 else 1
        columns = entry.size // rows
        smaller = rank * (rows + columns) < entry.size
        pieces.append(Piece(entry.start, rows, columns, rank if smaller else 0))
    return tuple(pieces)


def factored(values_T: Floats, pieces: Sequence[Piece], generator: np.random.Generator) -> Floats:
    """Return trainable values piece by piece: the columns of P and Q, or the tensor unchanged."""
    parts = []
    for piece in pieces:
        part = values_T[piece.start : piece.start + piece.size]
        if piece.rank:
            start = generator.standard_normal((piece.columns, piece.rank), dtype=np.float32)
            matrix = torch.from_numpy(part).view(piece.rows, piece.columns)
            part = _factors(matrix, torch.from_numpy(start))
        parts.append(part)
    return np.concatenate(parts)


def _factors(matrix: Tensor, right: Tensor) -> Floats:
    """Return P with orthonormal columns, and Q = M^T P, column after column."""
    if not bool(torch.isfinite(matrix).all()):
        # Send NaN, which the checks on arrival detect; no iteration is needed for that.
        return np.full(sum(matrix.shape) * right.shape[1], np.nan, dtype=np.float32)
    for _ in range(_ITERATIONS):
        left, _ = torch.linalg.qr(matrix @ right)
        right = matrix.T @ left
    both: Floats = torch.cat([left.T.reshape(-1), right.T.reshape(-1)]).numpy()
    return both


def multiplied(values_V: Floats, pieces: Sequence[Piece], num_trainable: int) -> Floats:
    """Undo `factored`.

    It adds rank by rank, so that the result does not depend on how threads share a matrix product.
    """
    values_T = np.zeros(num_trainable, dtype=np.float32)
    start = 0
    for piece in pieces:
        part = values_V[start : start + piece.num_sent]
        start += piece.num_sent
        into = values_T[piece.start : piece.start + piece.size]
        if not piece.rank:
            into[:] = part
            continue
        left = part[: piece.rank * piece.rows].reshape(piece.rank, piece.rows, 1)
        right = part[piece.rank * piece.rows :].reshape(piece.rank, 1, piece.columns)
        product = into.reshape(piece.rows, piece.columns)
        for k in range(piece.rank):
            product += left[k] * right[k]
    return values_T
