"""Tiles that overlap and are blended: what they cover, and how they are put together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.evaluation.tiles import starts, tiled_logits


@given(st.integers(1, 500), st.integers(1, 200))
def test_tiles_cover_a_length_with_a_quarter_of_overlap(length: int, tile: int) -> None:
    found = starts(length, tile)
    assert found[0] == 0
    assert found[-1] == max(0, length - tile)
    steps = np.diff(found)
    assert (steps > 0).all()
    assert (steps <= max(1, int(0.75 * tile) + 1)).all()


def test_a_network_that_looks_at_single_pixels_sees_the_same_in_tiles() -> None:
    generator = np.random.Generator(np.random.Philox(1))
    image_HWC = generator.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    sizes = []

    def run(tiles_NHWC: np.ndarray) -> torch.Tensor:
        sizes.append(tiles_NHWC.shape)
        return torch.from_numpy(tiles_NHWC.astype(np.float32)).permute(0, 3, 1, 2)

    logits_CHW = tiled_logits(run, image_HWC, (16, 20), batch_size=5)
    assert np.allclose(logits_CHW.numpy(), image_HWC.transpose(2, 0, 1), atol=1e-3)
    assert {shape[1:] for shape in sizes} == {(16, 20, 3)}
    assert [shape[0] for shape in sizes] == [5, 5, 2]  # 3 x 4 tiles


def test_where_tiles_overlap_the_nearer_one_counts_more() -> None:
    """Two tiles of 8 over 12 pixels: one says 0, the other 1; in between it goes up evenly."""

    def run(tiles_NHWC: np.ndarray) -> torch.Tensor:
        return torch.arange(len(tiles_NHWC)).float()[:, None, None, None].expand(-1, 1, 8, 8)

    row = tiled_logits(run, np.zeros((8, 12, 3), np.uint8), (8, 8), batch_size=8)[0, 4].tolist()
    assert row[:4] == [0] * 4
    assert row[8:] == [1] * 4
    # Weights fall off over two pixels: 3/4 and 1/4 at the edges.
    assert row[4:8] == pytest.approx([0.25 / 1.25, 0.75 / 1.75, 1 / 1.75, 1 / 1.25])


def test_a_small_image_is_one_tile_at_its_own_size_and_logits_are_resized() -> None:
    def run(tiles_NHWC: np.ndarray) -> torch.Tensor:
        assert tiles_NHWC.shape == (1, 6, 9, 3)
        return torch.ones(1, 2, 3, 3)

    logits_CHW = tiled_logits(run, np.zeros((6, 9, 3), np.uint8), (64, 64), batch_size=4)
    assert logits_CHW.shape == (2, 6, 9)
    assert logits_CHW.unique().tolist() == [1]
