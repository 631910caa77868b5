"""The random crop of published code, for reproducing its results; `augment` has our own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Image_HWC, Label_HW


def unfiltered_crop(
    image_HWC: Image_HWC,
    label_HW: Label_HW,
    crop_hw: tuple[int, int],
    scale: float,
    place: tuple[float, float],
) -> tuple[Image_HWC, Label_HW]:
    """Resize a whole sample by `scale`, pad both sides of an axis that is too short, and crop.

    This is `RandomResizedCrop` of FedDrive's transform_cv2.py, which FedSeg took from the same
    source. Unlike torchvision's, it keeps the aspect ratio. Images are resized bilinearly without
    an antialiasing filter, labels by the upper left neighbour; padding is black and void.

    Args:
        image_HWC: uint8.
        label_HW: same size as the image.
        crop_hw: (height, width) of the result.
        scale: target size divided by source size.
        place: relative position (down, right) of the crop within the remaining space, in [0, 1).
    """
    new_hw = [math.ceil(size * scale) for size in label_HW.shape]
    # Add the batch axis first: see augment._resample.
    image_NCHW = torch.from_numpy(image_HWC.copy()).unsqueeze(0).permute(0, 3, 1, 2)
    image_NCHW = functional.interpolate(image_NCHW, new_hw, mode="bilinear", align_corners=False)
    rows, columns = (_window(*axis) for axis in zip(new_hw, crop_hw, place, strict=True))
    ground_HWC = np.zeros((*crop_hw, 3), np.uint8)
    ground_HW = np.full(crop_hw, IGNORE, np.uint8)
    there = rows.target, columns.target
    ground_HWC[there] = image_NCHW[0, :, rows.source, columns.source].permute(1, 2, 0).numpy()
    nearest = [
        np.arange(new)[window.source] * old // new
        for window, new, old in zip((rows, columns), new_hw, label_HW.shape, strict=True)
    ]
    ground_HW[there] = label_HW[np.ix_(*nearest)]
    return ground_HWC, ground_HW


@dataclass(frozen=True)
class _Window:
    """One axis: pixels `source` of the resized image become pixels `target` of the crop."""

    source: slice
    target: slice


def _window(size: int, crop: int, place: float) -> _Window:
    pad = (crop - size) // 2 + 1 if size < crop else 0
    start = int(place * (size + 2 * pad - crop)) - pad
    first, end = max(start, 0), min(start + crop, size)
    return _Window(slice(first, end), slice(first - start, end - start))
