"""Predict an image at its own resolution, from overlapping tiles that are blended.

Suffixes: N tiles, H x W pixels of the image, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fleetseg.data.sample import Image_HWC
from fleetseg.evaluation.predict import Images_NHWC, resized

OVERLAP = 0.25
"""Least overlap as a share of a tile, on each side with a neighbour; tiles are spread evenly."""


def tiled_logits(
    run: Callable[[Images_NHWC], Tensor],
    image_HWC: Image_HWC,
    tile_hw: tuple[int, int],
    *,
    batch_size: int,
) -> Tensor:
    """Return float32 logits (C, H, W) of an image, computed at its own scale.

    Where tiles overlap, their logits are averaged with weights that fall off linearly towards a
    tile's edge, where there is context on one side only. An image smaller than a tile is one tile.

    Args:
        run: returns the logits (N, C, h, w) of a batch, at any resolution.
        image_HWC: of any size.
        tile_hw: size that the network was trained at.
        batch_size: number of tiles per batch.
    """
    height, width, _ = image_HWC.shape
    tile_hw = (min(tile_hw[0], height), min(tile_hw[1], width))
    corners = [
        (top, left) for top in starts(height, tile_hw[0]) for left in starts(width, tile_hw[1])
    ]
    places = [
        (slice(top, top + tile_hw[0]), slice(left, left + tile_hw[1])) for top, left in corners
    ]
    window_HW, weights_HW = _window(tile_hw), torch.zeros(height, width)
    sum_CHW: Tensor | None = None
    for first in range(0, len(places), batch_size):
        part = places[first : first + batch_size]
        logits_NCHW = run(np.stack([image_HWC[place] for place in part]))
        if sum_CHW is None:
            device = logits_NCHW.device
            sum_CHW = torch.zeros(logits_NCHW.shape[1], height, width, device=device)
            window_HW, weights_HW = window_HW.to(device), weights_HW.to(device)
        for (rows, columns), logits_CHW in zip(part, logits_NCHW, strict=True):
            sum_CHW[:, rows, columns] += resized(logits_CHW[None], tile_hw)[0] * window_HW
            weights_HW[rows, columns] += window_HW
    assert sum_CHW is not None
    return sum_CHW.div_(weights_HW)


def starts(length: int, tile: int, overlap: float = OVERLAP) -> list[int]:
    """Return the starts of tiles that cover a length evenly, with at least this overlap.

    >>> starts(100, 100), starts(200, 100), starts(175, 100)
    ([0], [0, 50, 100], [0, 75])
    """
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    gaps = -(-(length - tile) // step)
    return [round(k * (length - tile) / gaps) for k in range(gaps + 1)]


def _window(tile_hw: tuple[int, int]) -> Tensor:
    """Return weights (H, W): 1 inside, falling linearly to nearly 0 over the overlap."""
    rows, columns = (_ramp(length) for length in tile_hw)
    return rows[:, None] * columns[None, :]


def _ramp(length: int) -> Tensor:
    from_edge = torch.arange(length).add(0.5)
    from_edge = torch.minimum(from_edge, length - from_edge)
    return (from_edge / max(1.0, length * OVERLAP)).clamp(max=1)
