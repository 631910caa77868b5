"""The random crop of published code, for those who reproduce it; `augment` has our own."""

from __future__ import annotations

import math

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
    """Resize all of a sample by `scale`, pad what is too small on both sides, cut a crop out.

    `RandomResizedCrop` of FedDrive's transform_cv2.py, which FedSeg has from the same place: not
    torchvision's, it keeps the aspect ratio. Bilinear without a filter where it shrinks, labels by
    the upper left neighbour, padding black and void.

    Args:
        image_HWC: uint8.
        label_HW: of the same size.
        crop_hw: (height, width) of the result.
        scale: target size over source size.
        place: of the crop in what is left over, down and right, in [0, 1).
    """
    size_hw = tuple(math.ceil(size * scale) for size in label_HW.shape)
    image_NCHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1).unsqueeze(0)
    image_NCHW = functional.interpolate(image_NCHW, size_hw, mode="bilinear", align_corners=False)
    image_HWC = image_NCHW[0].permute(1, 2, 0).numpy()
    rows, columns = (
        np.arange(new) * old // new for new, old in zip(size_hw, label_HW.shape, strict=True)
    )
    label_HW = label_HW[rows][:, columns]
    pads = [_padding(*sizes) for sizes in zip(size_hw, crop_hw, strict=True)]
    image_HWC = np.pad(image_HWC, [*pads, (0, 0)])
    label_HW = np.pad(label_HW, pads, constant_values=IGNORE)
    top, left = (
        int(share * (size - crop))
        for share, size, crop in zip(place, label_HW.shape, crop_hw, strict=True)
    )
    cut = np.s_[top : top + crop_hw[0], left : left + crop_hw[1]]
    return image_HWC[cut], label_HW[cut]


def _padding(size: int, crop: int) -> tuple[int, int]:
    pad = (crop - size) // 2 + 1 if size < crop else 0
    return pad, pad
