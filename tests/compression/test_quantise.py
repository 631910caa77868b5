"""Fewer bits: by hand, against torch's own formats, and without bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fleetseg import rng
from fleetseg.compression import quantise as q

patterns = arrays(np.uint32, st.integers(0, 40), elements=st.integers(0, 2**32 - 1))
finite = arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-16384, 16384, width=32, allow_nan=False)
)


class Half(np.random.Generator):
    """Draws that are always one half: rounding to nearest."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def random(self, size=None, dtype=np.float64, out=None):  # type: ignore[no-untyped-def]
        return np.full(size, 0.5, dtype)


def test_integers_by_hand() -> None:
    values = np.array([0.0, 1.1, -2.0, 0.5, 0.3, -0.1], np.float32)
    codes, scales = q.to_integers(values, np.array([3, 0, 3]), 7, Half())
    assert scales.tolist() == pytest.approx([2 / 7, 0, 0.5 / 7])
    # 1.1 / (2/7) = 3.85, and a half more is 4.35; 0.3 / (0.5/7) = 4.2; -0.1 / (0.5/7) = -1.4.
    assert codes.tolist() == [0, 4, -7, 7, 4, -1]
    back = q.from_integers(codes, scales, np.array([3, 0, 3]))
    assert back.tolist() == pytest.approx([0, 8 / 7, -2, 0.5, 2 / 7, -0.5 / 7])


@pytest.mark.parametrize("levels", [127, 7])
@given(values=finite, cut=st.integers(0, 60))
def test_integers_stay_within_one_step(levels: int, values: q.Floats, cut: int) -> None:
    sizes = np.array([min(cut, values.size), values.size - min(cut, values.size)])
    codes, scales = q.to_integers(values, sizes, levels, rng.generator(0))
    assert int(np.abs(codes.astype(int)).max()) <= levels
    error = np.abs(q.from_integers(codes, scales, sizes) - values)
    assert (error <= np.repeat(scales, sizes) * 1.0001 + 1e-36).all()


@pytest.mark.parametrize("levels", [127, 7])
def test_integers_have_no_bias(levels: int) -> None:
    """The mean of many roundings is the value, to four standard errors of it."""
    values = np.array([0.013, -0.5, 1.0, 0.777, -0.0001], np.float32)
    sizes, times = np.array([values.size]), 20_000
    generator = rng.generator(1)
    total = np.zeros(values.size)
    for _ in range(times):
        codes, scales = q.to_integers(values, sizes, levels, generator)
        total += q.from_integers(codes, scales, sizes)
    standard_error = scales[0] * 0.5 / np.sqrt(times)
    assert np.abs(total / times - values).max() < 4 * standard_error


@given(values=finite, bad=st.sampled_from([np.nan, np.inf, -np.inf]), at=st.integers(0, 59))
def test_what_is_not_finite_never_comes_back_finite(values: q.Floats, bad: float, at: int) -> None:
    values[at % values.size] = bad
    sizes = np.array([values.size])
    codes, scales = q.to_integers(values, sizes, 127, rng.generator(0))
    with np.errstate(invalid="ignore"):
        assert not np.isfinite(q.from_integers(codes, scales, sizes)).any()
    half, scales = q.to_float16(values, sizes)
    assert not np.isfinite(q.from_float16(half, scales, sizes)[at % values.size])
    assert not np.isfinite(q.from_bfloat16(q.to_bfloat16(values)))[at % values.size]
    assert not np.isfinite(q.from_bfloat16(q.cut_to_bfloat16(values)))[at % values.size]


def test_a_group_of_zeros_stays_zero() -> None:
    codes, scales = q.to_integers(np.zeros(4, np.float32), np.array([4]), 127, rng.generator(0))
    assert q.from_integers(codes, scales, np.array([4])).tolist() == [0] * 4


@given(patterns)
def test_bfloat16_is_torch_s(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    ours = q.from_bfloat16(q.to_bfloat16(values))
    torchs = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(ours, torchs, equal_nan=True)


@given(patterns)
def test_a_cut_bfloat16_is_nowhere_larger_and_one_step_away_at_most(bits: np.ndarray) -> None:
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    cut = q.from_bfloat16(q.cut_to_bfloat16(values))
    assert (np.abs(cut) <= np.abs(values)).all()
    assert ((cut == 0) | (np.sign(cut) == np.sign(values))).all()
    normal = np.abs(values) > 1e-37
    error = np.abs(cut.astype(float) - values)
    assert (error[normal] <= np.abs(values[normal].astype(float)) * 2.0**-7).all()


@given(values=finite)
def test_float16_is_exact_to_eleven_bits_of_the_largest(values: q.Floats) -> None:
    half, scales = q.to_float16(values, np.array([values.size]))
    back = q.from_float16(half, scales, np.array([values.size])).astype(float)
    most = float(np.abs(values).max())
    bound = np.maximum(np.abs(values).astype(float) * 2.0**-11, most * 2.0**-38)
    assert (np.abs(back - values) <= bound + 1e-44).all()


@given(arrays(np.int8, st.integers(0, 33), elements=st.integers(-8, 7)))
def test_nibbles_round_trip(codes: q.Codes) -> None:
    packed = q.to_nibbles(codes)
    assert packed.size == (codes.size + 1) // 2
    assert np.array_equal(q.from_nibbles(packed, codes.size), codes)
