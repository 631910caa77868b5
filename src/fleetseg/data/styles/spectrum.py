"""Styles as amplitudes of an image's lowest frequencies: slow variations of light and colour.

The amplitudes in a window of the spectrum are replaced; phases and all other frequencies stay. FDA:
Yang, Soatto, CVPR 2020, arXiv 2004.05498. CFSI goes part of the way: Liu et al. (FedDG), CVPR 2021,
arXiv 2103.06030. Amplitudes are divided by the number of pixels, so that the amplitude of frequency
0 is the channel's mean level, which no other exceeds, and images of any size are comparable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Image_HWC

Floats = npt.NDArray[np.float32]
Complex = npt.NDArray[np.complexfloating]


def amplitudes(image_HWC: Image_HWC, half_hw: tuple[int, int]) -> Floats:
    """Return an image's amplitudes of -b .. b cycles along each side: shape (3, 2b + 1, 2b' + 1).

    Frequency 0 is in the middle; entries opposite each other about the middle are equal.
    """
    half_CUV = np.abs(_spectrum(_channels(image_HWC), half_hw))
    mirrored_CUV = half_CUV[:, ::-1, :0:-1]  # for a real image, A(u, -v) = A(-u, v)
    return np.concatenate([mirrored_CUV, half_CUV], axis=2).astype(np.float32)


def with_amplitudes(image_HWC: Image_HWC, target_CUV: Floats, share: float = 1.0) -> Floats:
    """Move an image's lowest amplitudes a share of the way to a target, without clipping.

    Args:
        image_HWC: larger than the window along both sides.
        target_CUV: as returned by `amplitudes`.
        share: lambda of A + lambda (A' - A); 1 = all the way.

    Returns:
        float32 of shape (3, H, W), neither clipped nor rounded.
    """
    up, across = (size // 2 for size in target_CUV.shape[1:])
    image_CHW = _channels(image_HWC)
    own_CUV = _spectrum(image_CHW, (up, across))
    own = np.abs(own_CUV)
    # A frequency that the image lacks has no phase: use 0, as numpy's angle does.
    direction_CUV = np.where(own > 0, own_CUV / np.where(own > 0, own, 1), 1)
    change_CUV = share * (target_CUV[:, :, across:] - own) * direction_CUV
    # Transform back only the change: frequencies outside the window then stay exact.
    columns_CHV = np.zeros((3, image_HWC.shape[0], across + 1), np.complex64)
    columns_CHV[:, _around_zero(up)] = change_CUV
    waves_CHV = np.fft.ifft(columns_CHV, axis=1, norm="forward")
    wave_CHW = np.fft.irfft(waves_CHV, n=image_HWC.shape[1], axis=2, norm="forward")
    changed_CHW: Floats = image_CHW + wave_CHW.astype(np.float32)
    return changed_CHW


def _spectrum(image_CHW: Floats, half_hw: tuple[int, int]) -> Complex:
    """Return rows -b .. b and columns 0 .. b' of the spectrum; negative columns mirror these."""
    up, across = half_hw
    height, width = image_CHW.shape[1:]
    assert 2 * up < height, "a window lies within the spectrum"
    assert 2 * across < width, "a window lies within the spectrum"
    columns_CHV = np.fft.rfft(image_CHW, axis=2, norm="forward")[:, :, : across + 1]
    return np.fft.fft(columns_CHV, axis=1, norm="forward")[:, _around_zero(up)]


def _around_zero(half: int) -> npt.NDArray[np.intp]:
    return np.arange(-half, half + 1)


def _channels(image_HWC: Image_HWC) -> Floats:
    return np.ascontiguousarray(image_HWC.transpose(2, 0, 1)).astype(np.float32)
