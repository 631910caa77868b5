"""Styles as mean and standard deviation of L, a and b: six numbers.

Each channel of an image is shifted and scaled to match another image. Reinhard et al. 2001; in
federated segmentation, FedDrive: Fantauzzo et al., IROS 2022, arXiv 2202.13670.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Image_HWC
from fleetseg.data.styles.colour import image_of, lab_of

Floats = npt.NDArray[np.float32]
_FLAT = 1e-3  # a smaller deviation is only rounding error: do not scale it


def moments(image_HWC: Image_HWC) -> Floats:
    """Return means (row 0) and standard deviations (row 1) of L, a, b: float32, shape (2, 3)."""
    return _moments(lab_of(image_HWC)).astype(np.float32)


def with_moments(image_HWC: Image_HWC, target_23: Floats, share: float = 1.0) -> Image_HWC:
    """Move an image's means and deviations to the target, or a share of the way there."""
    return image_of(moved(lab_of(image_HWC), target_23, share))


def moved(lab_CHW: Floats, target_23: Floats, share: float = 1.0) -> Floats:
    """Shift and scale the channels of a Lab image; a flat channel is only shifted."""
    own_23 = _moments(lab_CHW)
    to_23 = own_23 + share * (target_23 - own_23)
    flat_3 = own_23[1] < _FLAT
    stretch_3 = np.where(flat_3, 1.0, to_23[1] / np.where(flat_3, 1.0, own_23[1]))
    shift_3 = to_23[0] - stretch_3 * own_23[0]
    stretched = [
        np.float32(stretch) * plane_HW + np.float32(shift)
        for plane_HW, stretch, shift in zip(lab_CHW, stretch_3, shift_3, strict=True)
    ]
    return np.stack(stretched)


def _moments(lab_CHW: Floats) -> npt.NDArray[np.float64]:
    mean_3 = lab_CHW.mean(axis=(1, 2), dtype=np.float64)
    return np.stack([mean_3, lab_CHW.std(axis=(1, 2), dtype=np.float64)])
