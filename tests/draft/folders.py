"""Small folders of images and masks, as users have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tests.published_layouts import save

from fleetseg import rng


def picture(number: int = 0, size_hw: tuple[int, int] = (64, 96)) -> npt.NDArray[np.uint8]:
    """An image of noise, no two alike."""
    return rng.generator(number, purpose="own-folder").integers(0, 256, (*size_hw, 3), np.uint8)


def own_folder(
    root: Path, *, ids: Sequence[int], frames: int = 4, drives: Sequence[str] = ("",)
) -> Path:
    """Write images/<drive>/<n>.jpg with masks/<drive>/<n>.png, of vertical stripes of ids."""
    for place, drive in enumerate(drives):
        for frame in range(frames):
            save(root / "images" / drive / f"{frame}.jpg", picture(place * frames + frame))
            stripes_HW = np.array(ids, np.uint8)[np.arange(96) * len(ids) // 96][None].repeat(64, 0)
            save(root / "masks" / drive / f"{frame}.png", stripes_HW)
    return root
