"""Convert an image or label map from numpy, PIL or torch; ambiguous input is refused.

A raw image keeps its values, because only the whole collection shows whether floating-point images
range to 1 or to 255; `to_rgb` converts it to 8 bits. Suffixes: HWC = height, width, channel; HW.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.errors import DataError, FleetSegError
from fleetseg.text import listing

Raw = npt.NDArray[Any]

CHANNELS = (1, 3, 4)
"""Grey, RGB, RGB with alpha."""
VOID_IDS = (-1, -100)
"""The ids that Cityscapes and torch use for "ignore"; no class can have them."""
ROUNDING = 1e-3
"""How far a smooth resize may push floating-point values beyond the ends of their range."""

_TO_RGB = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_NUMBERS = ("I;16", "I;16B", "I;16L", "I", "F")
_IDS = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I")
_HANDED_OVER = "a numpy array, a PIL image or a torch tensor"


def raw_image(value: object, label_hw: tuple[int, ...], where: str) -> Raw:
    """Return an image as an array (height, width, 1, 3 or 4) with unchanged values.

    The size of the label distinguishes (C, H, W) from (H, W, C); if both fit, a torch tensor is
    read as (C, H, W) and a numpy array as (H, W, C).

    Raises:
        DataError: not an image, a size other than the label's, or values that are not colours.
    """
    array = _from_pil(value, where) if isinstance(value, Image.Image) else _array(value, where)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise DataError(
            "not an image",
            where=where,
            got=f"an array of shape {array.shape}",
            expected="(height, width), (height, width, channels) or (channels, height, width)",
            cure="Each sample must be one image: split batches",
        )
    is_hwc = array.shape[2] in CHANNELS and array.shape[:2] == label_hw
    is_chw = array.shape[0] in CHANNELS and array.shape[1:] == label_hw
    if is_chw and (not is_hwc or isinstance(value, torch.Tensor)):
        array = array.transpose(1, 2, 0)
    elif not is_hwc:
        raise _misfit(array, label_hw, where)
    _check_numbers(array, where)
    return array


def to_rgb(raw_HWC: Raw, *, unit_range: bool) -> Image_HWC:
    """Return a raw image as 8-bit RGB; grey is repeated, alpha dropped.

    Args:
        raw_HWC: as returned by `raw_image`; an image already in this form is not copied.
        unit_range: whether floating-point values range to 1 instead of 255.
    """
    if raw_HWC.shape[2] == 1:
        raw_HWC = np.repeat(raw_HWC, 3, axis=2)
    raw_HWC = raw_HWC[..., :3]
    if raw_HWC.dtype == np.bool_:
        raw_HWC = raw_HWC * np.uint8(255)
    elif raw_HWC.dtype.kind == "f":
        scaled_HWC = raw_HWC.astype(np.float32) * np.float32(255 if unit_range else 1)
        raw_HWC = np.rint(scaled_HWC).clip(0, 255)
    return np.ascontiguousarray(raw_HWC, dtype=np.uint8)


def to_ids(value: object, num_classes: int, where: str) -> Label_HW:
    """Return a label map as uint8 (height, width): classes 0 .. num_classes - 1 and IGNORE.

    (H, W, 1), (1, H, W), other integer types and bool are converted; -1 and -100 become IGNORE.

    Raises:
        DataError: not a label map, or ids outside the label space.
    """
    if isinstance(value, Image.Image):
        if value.mode not in _IDS:
            raise _colours(f"a picture of mode {value.mode}", where)
        with readable(where, "label"):
            value = np.asarray(ImageOps.exif_transpose(value))
    ids = _array(value, where, "label")
    if ids.ndim == 3 and 1 in (ids.shape[2], ids.shape[0]):
        ids = ids[..., 0] if ids.shape[2] == 1 else ids[0]
    if ids.ndim != 2:
        raise _not_a_map(ids, num_classes, where)
    if ids.size == 0:
        raise DataError("the label is empty", where=where, got=f"shape {ids.shape}")
    if ids.dtype == np.bool_:
        ids = ids.astype(np.uint8)
    if ids.dtype.kind not in "ui":
        raise DataError(
            "the label's ids are not integers",
            where=where,
            got=str(ids.dtype),
            expected=f"0-{num_classes - 1}, or {IGNORE} to ignore",
            cure="Give label.astype(np.uint8) if the numbers are whole; torchvision's ToTensor "
            "divides ids by 255, PILToTensor leaves them as they are",
        )
    if ids.dtype.kind == "i":
        ids = np.where(np.isin(ids, VOID_IDS), np.array(IGNORE, np.int64), ids)
    _check_ids(ids, num_classes, where)
    return np.ascontiguousarray(ids, dtype=np.uint8)


def _array(value: object, where: str, what: str = "image") -> Raw:
    if isinstance(value, torch.Tensor):
        with readable(where, what):  # sparse, quantised and meta tensors are not
            tensor = value.detach().cpu()
            is_small_float = tensor.dtype in (torch.bfloat16, torch.float16)
            array = (tensor.float() if is_small_float else tensor).numpy()
    elif isinstance(value, np.ma.MaskedArray):
        array = _unmasked(value, where, what)
    elif isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "__array__"):
        with readable(where, what):
            array = np.asarray(value)
    else:
        raise _not_handed_over(value, where, what)
    if array.dtype.kind not in "buif":
        raise _not_handed_over(value, where, what, f"an array of {array.dtype}")
    return array


def _unmasked(array: np.ma.MaskedArray[Any, Any], where: str, what: str) -> Raw:
    """Return the numbers of a masked array: what is hidden in a label is void."""
    hidden = np.ma.getmaskarray(array)
    if not hidden.any():
        return array.filled()
    if what == "label" and array.dtype.kind in "bui":
        return np.where(hidden, IGNORE, array.filled(0).astype(np.int64))
    raise DataError(
        f"the {what} hides {int(hidden.sum()):,} of its values under a mask",
        where=where,
        cure="Fill them first: array.filled(0)",
    )


@contextmanager
def readable(where: str, what: str) -> Iterator[None]:
    """Name the image or label that another library cannot read, whatever it raises for it.

    Raises:
        DataError: it raised something.
    """
    try:
        yield
    except (FleetSegError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise DataError(f"the {what} cannot be read ({reason})", where=where) from error


def _not_handed_over(value: object, where: str, what: str, got: str = "") -> DataError:
    cure = None
    if isinstance(value, str | Path):
        got, cure = repr(str(value)), "Open it: PIL.Image.open(path)"
    elif value is None:
        got, cure = "None", "Leave out samples without a label"
    elif isinstance(value, list | tuple):
        cure = "Make it an array: numpy.asarray(...)"
    return DataError(
        f"the {what} cannot be read",
        where=where,
        got=got or type(value).__name__,
        expected=_HANDED_OVER,
        cure=cure,
    )


def _from_pil(image: Image.Image, where: str) -> Raw:
    with readable(where, "image"):  # an opened file is read only now
        image = ImageOps.exif_transpose(image)
    if image.mode in _NUMBERS:
        return np.asarray(image)
    if image.mode not in _TO_RGB:
        got = f"pixel mode {image.mode}"
        raise DataError("not a camera picture", where=where, got=got, cure="Convert it to RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _misfit(array: Raw, label_hw: tuple[int, ...], where: str) -> DataError:
    shape = array.shape
    sides = {shape[:2]: shape[2], shape[1:]: shape[0]}
    if label_hw in sides:
        return DataError(
            "the image has an unsupported number of channels",
            where=where,
            got=f"{sides[label_hw]} (shape {shape})",
            expected="1 (grey), 3 (RGB) or 4 (RGB and alpha)",
            cure="Select the red, green and blue channels",
        )
    height, width = shape[1:] if shape[2] not in CHANNELS and shape[0] in CHANNELS else shape[:2]
    turned = (width, height) == label_hw
    return DataError(
        "label and image differ in size",
        where=where,
        got=f"label {label_hw[1]}x{label_hw[0]}",
        expected=f"{width}x{height} as the image (width x height; its shape is {shape})",
        cure="Height and width of one of the two are swapped: transpose it"
        if turned
        else "Pair each label with its own image, or resize the label by nearest neighbour",
    )


def _check_numbers(array: Raw, where: str) -> None:
    if array.dtype == np.uint8 or array.dtype == np.bool_:
        return
    low, high = float(array.min()), float(array.max())  # both NaN if any value is NaN
    if not np.isfinite([low, high]).all():
        raise DataError("the image has NaN or infinite values", where=where, cure="Leave it out")
    slack = ROUNDING if array.dtype.kind == "f" else 0.0
    if low >= -slack and high <= 255 + slack:
        return
    if array.dtype.kind == "f":
        cure = (
            "It looks normalised: pass the image before normalisation, which the network's wrapper "
            "does itself"
        )
    elif high > 255:
        cure = "Convert it to 8 bits: image >> 8 for 16 bits, image >> 4 for 12"
    else:
        cure = None
    raise DataError(
        "the image's values are not colours",
        where=where,
        got=f"{low:g} to {high:g} ({array.dtype})",
        expected="0 to 255, or 0 to 1 in floating point",
        cure=cure,
    )


def _colours(got: str, where: str) -> DataError:
    return DataError(
        "the label has colours instead of ids",
        where=where,
        got=got,
        expected="one class id per pixel",
        cure="Turn colours into ids: fleetseg.data.labels.ids_from_colours",
    )


def _not_a_map(ids: Raw, num_classes: int, where: str) -> DataError:
    got = f"an array of shape {ids.shape}"
    if ids.ndim == 3 and num_classes in (ids.shape[0], ids.shape[2]):
        axis = 0 if ids.shape[0] == num_classes else 2
        return DataError(
            "the label has one channel per class",
            where=where,
            got=got,
            expected="(height, width)",
            cure=f"Give label.argmax({axis})",
        )
    if ids.ndim == 3 and {3, 4} & {ids.shape[0], ids.shape[2]}:
        return _colours(got, where)
    return DataError("not a label map", where=where, got=got, expected="(height, width)")


def _check_ids(ids: Raw, num_classes: int, where: str) -> None:
    wrong = ((ids >= num_classes) & (ids != IGNORE)) | (ids < 0)
    if not wrong.any():
        return
    found, pixels = np.unique(ids[wrong], return_counts=True)
    listed = [f"{i} ({n} px)" for i, n in zip(found.tolist(), pixels.tolist(), strict=True)]
    cure = f"Map them to 0-{num_classes - 1}, or name all classes in the label space"
    if found.tolist() == [num_classes]:
        cure = f"If {num_classes} means void, write {IGNORE}; if ids count from 1, subtract 1"
    raise DataError(
        "label ids outside the label space",
        where=where,
        got=listing(listed, 8),
        expected=f"0-{num_classes - 1}, or {IGNORE} to ignore",
        cure=cure,
    )
