"""Means of features over the pixels of each class, image by image.

Shapes: N images, C classes, D channels of features, P pixels of their map (h, w).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from fleetseg.data.labels import IGNORE


def class_means(
    features_NDhw: Tensor, labels_NHW: Tensor, covered_hw: tuple[int, int], num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return means_NCD, in float32, and whether there is a pixel to each, present_NC.

    A class that is not there has a mean of ones.

    Args:
        features_NDhw: of any resolution, covering `covered_hw` pixels.
        labels_NHW: train ids, of the images; what was padded to `covered_hw` is ignored.
        covered_hw: at least the labels' size.
        num_classes: C.
    """
    labels_Nhw = _shrunk(labels_NHW, covered_hw, (features_NDhw.shape[2], features_NDhw.shape[3]))
    classes_C = torch.arange(num_classes, device=labels_Nhw.device)
    pixels_NCP = (labels_Nhw.flatten(1).unsqueeze(1) == classes_C[:, None]).float()
    features_NPD = features_NDhw.float().permute(0, 2, 3, 1).flatten(1, 2)
    counts_NC = pixels_NCP.sum(2)
    present_NC = counts_NC > 0
    means_NCD = (pixels_NCP @ features_NPD) / counts_NC.clamp(min=1).unsqueeze(2)
    return means_NCD.where(present_NC.unsqueeze(2), 1.0), present_NC


def _shrunk(labels_NHW: Tensor, covered_hw: tuple[int, int], size_hw: tuple[int, int]) -> Tensor:
    """Take the label at the centre of each cell of a coarser map."""
    bottom, right = (covered_hw[k] - labels_NHW.shape[k + 1] for k in (0, 1))
    padded_NHW = functional.pad(labels_NHW, (0, right, 0, bottom), value=IGNORE)
    rows_h, columns_w = (
        ((torch.arange(size_hw[k], device=labels_NHW.device) + 0.5) * covered_hw[k] / size_hw[k])
        for k in (0, 1)
    )
    return padded_NHW[:, rows_h.long()][:, :, columns_w.long()]
