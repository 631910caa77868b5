"""The bytes of an update's values, of a size determined by codec and layout alone.

In order: gaps between sent values (if not all are sent), scales (if the format has them), sent
values, statistics, counters. Each array is written as byte planes, all first bytes, then all second
bytes, and so on: neighbouring bytes then look alike, which helps the entropy coder that follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.compression import quantise, sparse
from fleetseg.compression.codec import Codec
from fleetseg.compression.lowrank import Piece, factored, multiplied, pieces_of
from fleetseg.errors import UpdateRejected
from fleetseg.federation.tensors import Layout, ModelState

_WIDTH = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16, "int8": np.int8}
_HAS_SCALES = ("fp16", "int8", "int4")


@dataclass(frozen=True)
class Plan:
    """A codec fitted to a model: the number of values of each kind."""

    codec: Codec
    layout: Layout
    num_sent: int
    # Start of each group with its own scale: in the trainable values, or in their factors.
    groups_G: npt.NDArray[np.int64]
    pieces: tuple[Piece, ...] = ()  # if tensors are sent as factors

    @classmethod
    def of(cls, codec: Codec, layout: Layout) -> Plan:
        """Fit a codec to a layout."""
        if codec.rank:
            pieces = pieces_of(layout, codec.rank)
            sizes_G = np.array([size for piece in pieces for size in piece.groups], dtype=np.int64)
            return cls(codec, layout, int(sizes_G.sum()), np.cumsum(sizes_G) - sizes_G, pieces)
        starts: list[int] = []
        for entry in layout.floats:
            if entry.kind == "trainable" and entry.size:
                channels = entry.shape[0] if codec.by_channel and len(entry.shape) > 1 else 1
                starts += range(entry.start, entry.stop, entry.size // channels)
        return cls(
            codec,
            layout,
            sparse.count_of(codec.share, layout.num_trainable),
            np.array(starts, dtype=np.int64),
        )

    @property
    def arrays(self) -> Iterator[tuple[str, np.dtype[Any], int]]:
        """Name, type and length of each array, in order."""
        if self.codec.share < 1:
            yield "gaps", np.dtype(np.uint32), self.num_sent
        if self.codec.format in _HAS_SCALES:
            yield "scales", np.dtype(np.float32), self.groups_G.size
        if self.codec.format == "int4":
            yield "values", np.dtype(np.uint8), (self.num_sent + 1) // 2
        else:
            yield "values", np.dtype(_WIDTH[self.codec.format]), self.num_sent
        statistics = np.float32 if self.codec.format == "fp32" else np.uint16
        num_statistics = self.layout.num_floats - self.layout.num_trainable
        yield "statistics", np.dtype(statistics), num_statistics
        yield "counters", np.dtype(np.int64), self.layout.num_counters

    @property
    def num_trainable(self) -> int:
        """Number of values before any are omitted."""
        return self.layout.num_trainable

    @property
    def num_bytes(self) -> int:
        """Total size."""
        return sum(dtype.itemsize * length for _, dtype, length in self.arrays)

    def sizes_G(self, positions: sparse.Positions | None) -> npt.NDArray[np.int64]:
        """Return the number of sent values in each group."""
        ends = np.append(self.groups_G[1:], self.num_sent if self.pieces else self.num_trainable)
        if positions is None:
            return ends - self.groups_G
        return np.diff(np.searchsorted(positions, np.append(self.groups_G, ends[-1:])))


def encode(change: ModelState, plan: Plan, generator: np.random.Generator) -> bytes:
    """Encode a change of the model in `plan.num_bytes` bytes."""
    num, codec = plan.layout.num_trainable, plan.codec
    values_F = change.values_F.numpy()
    sent_V, positions = values_F[:num], None
    arrays: dict[str, npt.NDArray[Any]] = {}
    if plan.pieces:
        sent_V = factored(sent_V, plan.pieces, generator)
    elif codec.share < 1:
        positions = sparse.largest(sent_V, plan.num_sent)
        sent_V, arrays["gaps"] = sent_V[positions], sparse.to_gaps(positions)
    if codec.format in quantise.LEVELS:
        levels = quantise.LEVELS[codec.format]
        codes_V, arrays["scales"] = quantise.to_integers(
            sent_V, plan.sizes_G(positions), levels, generator
        )
        arrays["values"] = codes_V if codec.format == "int8" else quantise.to_nibbles(codes_V)
    elif codec.format == "fp16":
        arrays["values"], arrays["scales"] = quantise.to_float16(sent_V, plan.sizes_G(positions))
    else:
        arrays["values"] = quantise.to_bfloat16(sent_V) if codec.format == "bf16" else sent_V
    statistics = values_F[num:]
    exact = codec.format == "fp32"
    arrays["statistics"] = statistics if exact else quantise.cut_to_bfloat16(statistics)
    arrays["counters"] = change.counters_K.numpy()
    return b"".join(_planes(arrays[name], dtype) for name, dtype, _ in plan.arrays)


def decode(data: bytes, plan: Plan) -> ModelState:
    """Decode what `encode` wrote; values that were not sent are zero.

    Raises:
        UpdateRejected: wrong size, or positions outside the model.
    """
    if len(data) != plan.num_bytes:
        raise UpdateRejected(
            "malformed", "wrong payload size", got=len(data), expected=plan.num_bytes
        )
    arrays: dict[str, npt.NDArray[Any]] = {}
    start = 0
    for name, dtype, length in plan.arrays:
        stop = start + dtype.itemsize * length
        arrays[name] = _whole(data[start:stop], dtype)
        start = stop
    num, state = plan.layout.num_trainable, plan.layout.empty()
    values_F = state.values_F.numpy()
    positions = sparse.from_gaps(arrays["gaps"]) if "gaps" in arrays else None
    if plan.pieces:
        with np.errstate(invalid="ignore", over="ignore"):
            values_F[:num] = multiplied(_sent(arrays, plan, None), plan.pieces, num)
    elif positions is None:
        values_F[:num] = _sent(arrays, plan, None)
    else:
        if positions.size and positions[-1] >= num:
            raise UpdateRejected("malformed", "a position outside the model")
        values_F[:num] = 0
        values_F[positions] = _sent(arrays, plan, positions)
    statistics = arrays["statistics"]
    exact = plan.codec.format == "fp32"
    values_F[num:] = statistics if exact else quantise.from_bfloat16(statistics)
    state.counters_K.numpy()[:] = arrays["counters"]
    return state


def _sent(
    arrays: dict[str, npt.NDArray[Any]], plan: Plan, positions: sparse.Positions | None
) -> quantise.Floats:
    """Return values as floats; NaN and infinity are preserved, so that later checks detect them."""
    values, format_ = arrays["values"], plan.codec.format
    if format_ == "fp32":
        return values
    if format_ == "bf16":
        return quantise.from_bfloat16(values)
    sizes_G = plan.sizes_G(positions)
    with np.errstate(invalid="ignore", over="ignore"):
        if format_ == "fp16":
            return quantise.from_float16(values, arrays["scales"], sizes_G)
        codes_V = quantise.from_nibbles(values, plan.num_sent) if format_ == "int4" else values
        return quantise.from_integers(codes_V, arrays["scales"], sizes_G)


def _planes(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    assert array.dtype == dtype
    parts = np.ascontiguousarray(array).view(np.uint8).reshape(-1, dtype.itemsize)
    return np.ascontiguousarray(parts.T).tobytes()


def _whole(data: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    parts = np.frombuffer(data, dtype=np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(parts.T).view(dtype).reshape(-1)
