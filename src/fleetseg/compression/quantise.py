"""Quantisation of floats to fewer bits.

Integers: each group of values (a tensor, or a slice of its first dimension: an output channel of a
convolution) has a scale s = max|v| / levels; q = floor(v / s + u) with u uniform in [0, 1), so that
the mean of q s over u is v, that is unbiased (QSGD, Alistarh et al. 2017, arXiv 1610.02132, with
the largest magnitude as the norm). Suffixes: V values, G groups.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8]

LEVELS = {"int8": 127, "int4": 7}
"""Largest magnitude of a code; the scale is symmetric and zero stays zero."""


def to_integers(
    values_V: Floats, sizes_G: npt.NDArray[np.int64], levels: int, generator: np.random.Generator
) -> tuple[Codes, Floats]:
    """Round to integers in -levels..levels; return (codes_V, scales_G).

    `sizes_G` says how many consecutive values share a scale; a size of 0 is allowed. A group with
    NaN or infinity gets a non-finite scale, so that its codes cannot pass for valid ones.
    """
    filled_G, starts = _filled(sizes_G)
    scales_G = np.zeros(sizes_G.size, dtype=np.float32)
    if values_V.size:
        highest = np.maximum.reduceat(values_V, starts)
        lowest = np.minimum.reduceat(values_V, starts)
        scales_G[filled_G] = np.maximum(highest, -lowest) / np.float32(levels)
    inverse_G = np.zeros_like(scales_G)
    np.divide(1, scales_G, out=inverse_G, where=scales_G > np.finfo(np.float32).tiny)
    work_V = np.repeat(inverse_G, sizes_G)
    with np.errstate(invalid="ignore", over="ignore"):
        work_V *= values_V
        work_V += generator.random(values_V.size, dtype=np.float32)
        np.floor(work_V, out=work_V)
        np.clip(work_V, -levels, levels, out=work_V)
        codes_V = work_V.astype(np.int8)
    return codes_V, scales_G


def _filled(
    sizes_G: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return which groups have values, and where the values of those groups begin."""
    filled_G = sizes_G > 0
    return filled_G, np.concatenate([[0], np.cumsum(sizes_G[filled_G])[:-1]])


def from_integers(codes_V: Codes, scales_G: Floats, sizes_G: npt.NDArray[np.int64]) -> Floats:
    """Return codes multiplied by their group's scale."""
    values_V = np.repeat(scales_G, sizes_G)
    values_V *= codes_V
    return values_V


def to_nibbles(codes_V: Codes) -> npt.NDArray[np.uint8]:
    """Pack codes in -8..7 two to a byte, the first in the low half."""
    padded = np.zeros(codes_V.size + codes_V.size % 2, dtype=np.uint8)
    padded[: codes_V.size] = codes_V.view(np.uint8) & 0x0F
    packed: npt.NDArray[np.uint8] = padded[0::2] | (padded[1::2] * np.uint8(16))
    return packed


def from_nibbles(packed: npt.NDArray[np.uint8], size: int) -> Codes:
    """Unpack `size` codes."""
    codes = np.empty(2 * packed.size, dtype=np.uint8)
    codes[0::2], codes[1::2] = packed & 0x0F, packed >> 4
    # Sign-extend four bits to eight: multiply by 16, then divide rounding towards minus infinity.
    signed: Codes = (codes[:size] * np.uint8(16)).view(np.int8) // np.int8(16)
    return signed


def to_bfloat16(values_V: Floats) -> npt.NDArray[np.uint16]:
    """Round to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits_V = values_V.view(np.uint32)
    rounded_V = (bits_V + (np.uint32(0x7FFF) + ((bits_V >> 16) & 1))) >> 16
    rounded_V[np.isnan(values_V)] = 0x7FC0
    return rounded_V.astype(np.uint16)


def cut_to_bfloat16(values_V: Floats) -> npt.NDArray[np.uint16]:
    """Truncate to bfloat16, so that no magnitude grows; NaN stays NaN.

    For changes of statistics: a variance that stays non-negative with the full change also does so
    with the truncated one.
    """
    cut_V = (values_V.view(np.uint32) >> 16).astype(np.uint16)
    cut_V[np.isnan(values_V)] = 0x7FC0
    return cut_V


def from_bfloat16(codes_V: npt.NDArray[np.uint16]) -> Floats:
    """Widen to float32, exactly."""
    return (codes_V.astype(np.uint32) << 16).view(np.float32)


def to_float16(
    values_V: Floats, sizes_G: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float16], Floats]:
    """Round to float16 after scaling each group by a power of two to use the range of float16.

    Changes of weights are mostly below 6e-5, where a plain float16 has few digits left.
    """
    filled_G, starts = _filled(sizes_G)
    scales_G = np.ones(sizes_G.size, dtype=np.float32)
    if values_V.size:
        most = np.maximum.reduceat(np.abs(values_V), starts)
        exponents = np.frexp(np.where(np.isfinite(most) & (most > 0), most, 1.0))[1]
        scales_G[filled_G] = np.ldexp(np.float32(1), np.clip(exponents - 15, -126, 126))
    with np.errstate(over="ignore"):
        return (values_V / np.repeat(scales_G, sizes_G)).astype(np.float16), scales_G


def from_float16(
    codes_V: npt.NDArray[np.float16], scales_G: Floats, sizes_G: npt.NDArray[np.int64]
) -> Floats:
    """Undo `to_float16`."""
    return codes_V.astype(np.float32) * np.repeat(scales_G, sizes_G)
