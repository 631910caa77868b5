"""Convert a camera image from a file, PIL, numpy or torch to 8-bit RGB.

Suffixes: HWC = height, width, RGB channel.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from fleetseg.data.arrays import CHANNELS, raw_image, readable, to_rgb
from fleetseg.data.sample import Image_HWC
from fleetseg.data.sources.reading import read_image
from fleetseg.errors import DataError

ImageLike = str | Path | Image.Image | npt.NDArray[Any] | torch.Tensor
"""The path of an image, a PIL image, or a uint8 array or tensor (H, W, 3) or (3, H, W)."""


def as_rgb(image: ImageLike, where: str) -> Image_HWC:
    """Return an image as uint8 (H, W, 3), turned upright; grey is repeated, alpha dropped.

    `where` names the image in errors, unless it has a path.

    Raises:
        BadSample: the file is missing, damaged or not an image.
        DataError: not an image, or values that are not colours.
    """
    if isinstance(image, str | Path):
        return read_image(str(image))
    if isinstance(image, Image.Image):
        with readable(where, "image"):
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F":
                return _from_array(np.asarray(upright), (upright.height, upright.width), where)
        return to_rgb(raw_image(upright, (upright.height, upright.width), where), unit_range=False)
    if isinstance(image, np.ndarray):
        return _from_array(image, image.shape[:2], where)
    if isinstance(image, torch.Tensor):
        shape = tuple(image.shape)
        is_chw = len(shape) == 3 and shape[0] in CHANNELS
        with readable(where, "image"):
            return _from_array(image, shape[1:] if is_chw else shape[:2], where)
    raise DataError(
        "not an image",
        where=where,
        got=type(image).__name__,
        expected="a path, a PIL image, a uint8 array (H, W, 3) or a uint8 tensor (3, H, W)",
    )


def _from_array(
    array: npt.NDArray[Any] | torch.Tensor, size_hw: tuple[int, ...], where: str
) -> Image_HWC:
    if 0 in array.shape:
        raise DataError("the image is empty", where=where, got=f"shape {tuple(array.shape)}")
    is_float = (
        array.is_floating_point() if isinstance(array, torch.Tensor) else array.dtype.kind == "f"
    )
    if is_float:
        # One image does not show whether its values range to 1 or to 255: a dark one fits both.
        cure = (
            "(image * 255).round().to(torch.uint8)"
            if isinstance(array, torch.Tensor)
            else "(image * 255).round().astype(np.uint8)"
        )
        raise DataError(
            "a floating-point image of unknown range",
            where=where,
            got=f"{array.dtype}, up to {float(array.max()):g}",
            expected="uint8, 0 to 255",
            cure=f"If its values range from 0 to 1: {cure}",
        )
    return to_rgb(raw_image(array, size_hw, where), unit_range=False)
