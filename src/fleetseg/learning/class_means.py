"""Mean features over the pixels of each class, per image.

Shapes: N images, C classes, D channels of features, P pixels of their map (h, w).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.data.labels import IGNORE


def class_means(
    features_NDhw: Tensor, labels_Nhw: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return means_NCD, in float32, and whether each class has a pixel, present_NC.

    An absent class has a mean of zeros.
    """
    classes_C = torch.arange(num_classes, device=labels_Nhw.device)
    pixels_NCP = (labels_Nhw.flatten(1).unsqueeze(1) == classes_C[:, None]).float()
    features_NPD = features_NDhw.float().permute(0, 2, 3, 1).flatten(1, 2)
    counts_NC = pixels_NCP.sum(2)
    return (pixels_NCP @ features_NPD) / counts_NC.clamp(min=1).unsqueeze(2), counts_NC > 0


def labels_at_centres(
    labels_NHW: Tensor, size_hw: tuple[int, int], covered_hw: tuple[int, int] | None = None
) -> Tensor:
    """Return the label at the centre of each cell of a coarser map, labels_Nhw.

    `covered_hw` is the size in pixels that the map covers, if images were padded for it: at least
    the size of the labels, which is the default. Labels of the padding are IGNORE.
    """
    height, width = labels_NHW.shape[1:]
    covered_hw = covered_hw or (height, width)
    bottom, right = covered_hw[0] - height, covered_hw[1] - width
    padded_NHW = functional.pad(labels_NHW, (0, right, 0, bottom), value=IGNORE)
    rows_h, columns_w = (
        (2 * torch.arange(small, device=labels_NHW.device) + 1) * large // (2 * small)
        for large, small in zip(covered_hw, size_hw, strict=True)
    )
    return padded_NHW[:, rows_h][:, :, columns_w]
