"""Packed label maps: unpacked as they were, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.data.store.packing import EXPECTED_RATIO, pack, unpack
from fleetseg.errors import DataError

AT = Path("labels.u8")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 256), st.integers(0, 9))
def test_round_trip(height: int, width: int, num_ids: int, seed: int) -> None:
    label_HW = np.random.default_rng(seed).integers(0, num_ids, (height, width)).astype(np.uint8)
    np.testing.assert_array_equal(unpack(pack(label_HW), (height, width), AT), label_HW)
    turned_HW = label_HW[::-1, ::-1]  # not one stretch of memory
    np.testing.assert_array_equal(unpack(pack(turned_HW), (height, width), AT), turned_HW)


def test_no_label_takes_no_byte() -> None:
    assert pack(np.zeros((0, 0), np.uint8)).size == 0


def test_areas_shrink() -> None:
    label_HW = np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 60, 0), 60, 1)
    assert pack(label_HW).size * EXPECTED_RATIO < label_HW.size


@pytest.mark.parametrize("damage", ["flip", "cut", "size"])
def test_damage_is_told_and_never_a_label(damage: str) -> None:
    packed, size_hw = pack(np.arange(200, dtype=np.uint8).reshape(10, 20)).copy(), (10, 20)
    if damage == "flip":
        packed[packed.size // 2] ^= 1
    elif damage == "cut":
        packed = packed[:-5]
    else:
        size_hw = (10, 21)
    with pytest.raises(DataError, match=r"labels\.u8: damaged labels.*rebuilds it"):
        unpack(packed, size_hw, AT)
