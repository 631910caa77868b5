"""Read one image or label file; everything that can be wrong with it becomes a BadSample.

Suffixes: HWC = height, width, RGB channel; HW = height, width.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import (
    ExifTags,
    Image,
    ImageFile,
    ImageOps,
    PngImagePlugin,
    UnidentifiedImageError,
)

from fleetseg.data.labels import IGNORE, LabelSpace
from fleetseg.data.sample import Image_HWC, Label_HW, Sample
from fleetseg.data.sources.headers import is_deep_colour, num_pictures
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.label_maps import GREY_16, train_ids
from fleetseg.data.sources.png import without_texts
from fleetseg.errors import BadSample

MAX_PIXELS = 64_000_000
"""A larger file is a decompression bomb, not a road scene (the largest road sets have 22 MP)."""

# PIL tries only the decoders named here (its EPS decoder would start another program).
LABEL_FORMATS = ("PNG", "BMP", "TIFF", "PPM")
IMAGE_FORMATS = (*LABEL_FORMATS, "JPEG", "WEBP")

# Modes that convert to RGB without losing camera data: grey is repeated, alpha dropped, palettes
# are looked up, print colours converted.
_TO_RGB = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

_OTHER_ENDINGS = (".gif", ".npy", ".npz", ".mat", ".jfif", ".jp2", ".avif", ".heic", ".json")
_GIT_LFS = b"version http"
_OTHER_PICTURES = (b"GIF8", b"%PDF", b"8BPS", b"<svg")

_Check = Callable[[ImageFile.ImageFile, str], None]
"""Checks a file's header before its pixels are decoded."""
_Convert = Callable[[Image.Image, str], npt.NDArray[Any]]


def read_sample(
    sample: Sample, *, space: LabelSpace, code: LabelEncoding, bits: int = 16
) -> tuple[Image_HWC, Label_HW | None]:
    """Return image_HWC and label_HW (None if unlabelled) at the files' own resolution.

    An EXIF orientation is applied to either file that has one, as image viewers do. `bits` is the
    number of bits that 16-bit grey images actually use.

    Raises:
        BadSample: with the file, what is wrong with it, and the cure.
    """
    image_HWC = read_image(sample.image, bits)
    size_hw = (image_HWC.shape[0], image_HWC.shape[1])
    return image_HWC, read_label_of(sample, size_hw, space=space, code=code)


def read_label_of(
    sample: Sample, size_hw: tuple[int, int], *, space: LabelSpace, code: LabelEncoding
) -> Label_HW | None:
    """Return a label without reading its image, whose size is known; None if unlabelled.

    Raises:
        BadSample: with the file, what is wrong with it, and the cure.
    """
    if sample.label is None:
        return None
    label_HW = read_label(sample.label, space=space, code=code)
    if label_HW.shape != size_hw:
        raise _other_size(sample, label_HW, size_hw)
    if label_HW.min() == IGNORE:
        raise BadSample(
            "every pixel of the label is void",
            where=sample.label,
            expected=f"at least one pixel of a class of {space.name}",
            cure=code.void_cure
            or "Leave the sample out, or remove the label to keep the image unlabelled",
        )
    return label_HW


def _other_size(sample: Sample, label_HW: Label_HW, size_hw: tuple[int, int]) -> BadSample:
    return BadSample(
        "label and image differ in size",
        where=sample.label,
        got=f"label {_size(label_HW.shape)}",
        expected=f"{_size(size_hw)} as {sample.image}",
        cure=(
            "The label may have been drawn without the image's EXIF rotation: rotate it"
            if label_HW.shape[::-1] == size_hw
            else "Pair each label with its own image, or resize the label by nearest neighbour"
        ),
    )


def image_size(path: str) -> tuple[int, int]:
    """Return (height, width) of an image, turned upright, from the header of its file.

    Facts that follow the header are not considered: a PNG may store its rotation after its pixels.

    Raises:
        BadSample: the file is missing or not an image.
    """
    # If this fails, reading the whole image gives a better error.
    with suppress(Exception), Image.open(path, formats=IMAGE_FORMATS) as image:
        if image.width * image.height <= MAX_PIXELS:
            return _upright_size(image)
    image_HWC = read_image(path)
    return image_HWC.shape[0], image_HWC.shape[1]


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if isinstance(image, PngImagePlugin.PngImageFile):  # its getexif() decodes all pixels
        exif = Image.Exif()
        exif.load(image.info.get("exif", b""))
    else:
        exif = image.getexif()
    turned = exif.get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def read_image(path: str, bits: int = 16) -> Image_HWC:
    """Return an image as RGB, uint8, shape (height, width, 3), turned upright.

    16-bit grey keeps the high 8 of the `bits` that it uses; 16-bit colour keeps its high byte.

    Raises:
        BadSample: the file is missing, truncated, too large or not an image.
    """
    check = partial(_refuse_deep_colour, bits=bits)
    return _decode(path, IMAGE_FORMATS, check, partial(_rgb, bits=bits))


def read_label(path: str, *, space: LabelSpace, code: LabelEncoding) -> Label_HW:
    """Return a label map in train ids of `space`, uint8, shape (height, width).

    Raises:
        BadSample: the file is missing, truncated or not a label map, or has unknown ids.
    """
    convert = partial(train_ids, space=space, code=code)
    return _decode(path, LABEL_FORMATS, _check_label, convert)


def digest(sample: Sample) -> tuple[str, str]:
    """Return the SHA-256 (hex) of the image file and of the label file ("" if unlabelled).

    Raises:
        BadSample: a file is missing or cannot be read.
    """
    return _file_digest(sample.image), "" if sample.label is None else _file_digest(sample.label)


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _decode(
    path: str, formats: tuple[str, ...], check: _Check, convert: _Convert
) -> npt.NDArray[Any]:
    try:
        try:
            return _opened(path, path, formats, check, convert)
        except ValueError:
            # Perhaps only PIL's limit on texts and colour profiles was hit: the pixels may be fine.
            pixels = without_texts(path)
            if pixels is None:
                raise
            return _opened(pixels, path, formats, check, convert)
    except (BadSample, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadSample(
            f"picture too large to decode safely ({error})",
            where=path,
            expected=f"at most {MAX_PIXELS:,} pixels",
            cure="Scale it down",
        ) from None
    except UnidentifiedImageError:
        raise _not_a_picture(path, formats) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # from the disk, not the decoder
            raise _unreadable(path, error) from None
        # On damaged files PIL's decoders raise all kinds of exceptions, not only OSError.
        raise BadSample(
            f"truncated or damaged file ({error})", where=path, cure="Copy it again"
        ) from None


def _opened(
    file: str | BinaryIO, path: str, formats: tuple[str, ...], check: _Check, convert: _Convert
) -> npt.NDArray[Any]:
    with Image.open(file, formats=formats) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
        check(image, path)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return convert(image, path)


def _check_label(image: ImageFile.ImageFile, path: str) -> None:
    if (several := num_pictures(image)) > 1:
        raise BadSample(
            "label file with several pictures; only one can be the label",
            where=path,
            got=f"{several} pages or frames",
            cure="Save the one that has the class ids as PNG",
        )
    # PIL stretches 2- and 4-bit grey to 0-255 (id 1 becomes 17): harmless for a picture, a
    # silently wrong class for a label.
    if image.tile and image.tile[0][3] in ("L;2", "L;4"):
        raise BadSample(
            "label map in 2- or 4-bit grey, whose ids cannot be read reliably",
            where=path,
            expected="8-bit grey, palette or 16-bit grey",
            cure="Save it again as 8-bit PNG",
        )


def _refuse_deep_colour(image: ImageFile.ImageFile, path: str, bits: int) -> None:
    if bits < 16 and is_deep_colour(image):
        raise BadSample(
            f"16-bit colour that uses {bits} bits, but only the high byte is read",
            where=path,
            expected="16-bit grey or 8-bit colour",
            cure=f"Convert it to 8 bits: divide by {1 << (bits - 8)}",
        )


def _rgb(image: Image.Image, path: str, bits: int) -> Image_HWC:
    if image.mode in GREY_16:
        grey_HW = np.asarray(image)
        if grey_HW.min() >= 0 and grey_HW.max() < 1 << 16:
            return _from_grey_16(grey_HW, path, bits)
    if image.mode not in _TO_RGB:
        raise BadSample(
            "not a camera picture",
            where=path,
            got=f"pixel mode {image.mode}",
            expected="RGB, grey or palette of 8 bits, or 16-bit grey",
            cure="Convert it to RGB",
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    # Copy, because views of PIL's memory are read-only and torch warns about them.
    return np.array(image.convert("RGB"))


def _from_grey_16(grey_HW: npt.NDArray[Any], path: str, bits: int) -> Image_HWC:
    if grey_HW.max() >> bits:
        raise BadSample(
            f"brighter than {bits} bits allow",
            where=path,
            got=int(grey_HW.max()),
            expected=f"at most {(1 << bits) - 1}",
            cure="Correct `bits` in classes.toml",
        )
    return np.repeat((grey_HW >> (bits - 8)).astype(np.uint8)[..., None], 3, axis=2)


def _not_a_picture(path: str, formats: tuple[str, ...]) -> BadSample:
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError as error:
        return _unreadable(path, error)
    if formats is LABEL_FORMATS and start.startswith((b"\xff\xd8", b"RIFF")):
        return BadSample(
            "label map saved with a lossy format, which changes ids",
            where=path,
            got="JPEG or WebP",
            expected=" or ".join(formats),
            cure="Save the original label as PNG",
        )
    is_pointer = start.startswith(_GIT_LFS)
    is_other = start.startswith(_OTHER_PICTURES) or b"ftyp" in start
    return BadSample(
        "not a picture",
        where=path,
        got="a Git LFS pointer, which stands for the file"
        if is_pointer
        else f"a file that starts with {start!r}"
        if start
        else "an empty file",
        expected=" or ".join(formats),
        cure="Fetch the file: git lfs pull"
        if is_pointer
        else "Save it as PNG"
        if is_other
        else "Copy it again",
    )


def _unreadable(path: str, error: OSError) -> BadSample:
    if isinstance(error, FileNotFoundError):
        other = _of_another_ending(Path(path))
        return BadSample(
            "file not found",
            where=path,
            got=f"{other}, which is not read" if other else None,
            cure=f"Save {other} as PNG" if other else "Add it, or remove the file it belongs to",
        )
    return BadSample(f"cannot be read ({error.strerror or error})", where=Path(path))


def _of_another_ending(path: Path) -> str:
    """Return the name of a file that would be the one sought, had it not another format."""
    for ending in _OTHER_ENDINGS:
        for other in (path.with_suffix(ending), path.with_suffix(ending.upper())):
            if os.path.lexists(other):
                return other.name
    return ""


def _size(size_hw: tuple[int, ...]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
