"""Reading one image or label file: everything that can be wrong with it becomes a BadSample.

Suffixes: HWC = height, width, RGB channel; HW = height, width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

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

from fleetseg.data.labels import IGNORE, LabelSpace, ids_from_colours
from fleetseg.data.sample import Image_HWC, Label_HW, Sample
from fleetseg.data.sources.coding import LabelCode, shortened, to_train_ids
from fleetseg.errors import BadSample

MAX_PIXELS = 64_000_000
"""A larger file is a decompression bomb, not a road scene (the largest road sets have 22 MP)."""

MAX_UNKNOWN_COLOUR_SHARE = 0.001
"""Of a colour-coded label: a few stray pixels are ignored; more means another palette."""

# PIL never tries a decoder that is not named here (its EPS decoder starts another program).
LABEL_FORMATS = ("PNG", "BMP", "TIFF", "PPM")
IMAGE_FORMATS = (*LABEL_FORMATS, "JPEG", "WEBP")

# Modes whose conversion to RGB loses nothing a camera saw: grey is repeated, alpha is dropped,
# palettes are looked up, print colours are converted.
_TO_RGB = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_GREY_16 = ("I;16", "I;16B", "I;16L", "I")  # older Pillows open 16-bit grey PNG as "I"
_IDS = ("1", "L", "P", *_GREY_16)


def read_sample(
    sample: Sample, *, space: LabelSpace, code: LabelCode
) -> tuple[Image_HWC, Label_HW | None]:
    """Return image_HWC and label_HW (None if unlabelled) at the files' own resolution.

    An EXIF orientation is applied to either file that has one, as every viewer does.

    Raises:
        BadSample: with the file, what is wrong with it, and the cure.
    """
    image_HWC = read_image(sample.image)
    size_hw = (image_HWC.shape[0], image_HWC.shape[1])
    return image_HWC, read_label_of(sample, size_hw, space=space, code=code)


def read_label_of(
    sample: Sample, size_hw: tuple[int, int], *, space: LabelSpace, code: LabelCode
) -> Label_HW | None:
    """Return the label of an image of a known size, without reading the image; None if unlabelled.

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
            expected=f"some pixel of {space.name}",
            cure="Leave the sample out, or remove the label to keep the image unlabelled",
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
    """Return (height, width) of a picture, turned upright, from the head of its file.

    What the head does not tell is left out: a PNG may say its rotation after its pixels.

    Raises:
        BadSample: the file is missing or not a picture.
    """
    # Where this fails, reading the whole picture says better what is wrong.
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


def read_image(path: str) -> Image_HWC:
    """Return a picture as RGB, uint8, shape (height, width, 3), turned upright.

    16-bit grey keeps its high byte, as PIL does with 16-bit colour.

    Raises:
        BadSample: the file is missing, truncated, too large or not a picture.
    """
    return _decode(path, IMAGE_FORMATS, _rgb)


def read_label(path: str, *, space: LabelSpace, code: LabelCode) -> Label_HW:
    """Return a label map in train ids of `space`, uint8, shape (height, width).

    Raises:
        BadSample: the file is missing, truncated, not a label map, or has ids that mean nothing.
    """

    def raw_ids(image: Image.Image, path: str) -> npt.NDArray[Any]:
        by_colour = code.colours and (code.always_colours or image.mode in ("RGB", "RGBA"))
        return _ids_by_colour(image, path, code) if by_colour else _ids(image, path)

    ids_HW = _decode(path, LABEL_FORMATS, raw_ids)
    return to_train_ids(ids_HW, path, space=space, code=code)


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
    path: str,
    formats: tuple[str, ...],
    convert: Callable[[Image.Image, str], npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            if formats is LABEL_FORMATS:
                _refuse_scaled_grey(image, path)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return convert(image, path)
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
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise _unreadable(path, error) from None
    except Exception as error:
        # On damaged files PIL's decoders raise whatever they trip over, not only OSError.
        raise BadSample(
            f"truncated or damaged file ({error})", where=path, cure="Copy it again"
        ) from None


def _refuse_scaled_grey(image: ImageFile.ImageFile, path: str) -> None:
    # PIL stretches 2- and 4-bit grey to 0-255 (id 1 becomes 17): harmless for a picture, a
    # silently wrong class for a label.
    if image.tile and image.tile[0][3] in ("L;2", "L;4"):
        raise BadSample(
            "label map in 2- or 4-bit grey, whose ids are not read safely",
            where=path,
            expected="8-bit grey, palette or 16-bit grey",
            cure="Save it again as 8-bit PNG",
        )


def _rgb(image: Image.Image, path: str) -> Image_HWC:
    if image.mode in _GREY_16:
        grey_HW = np.asarray(image)
        if grey_HW.min() >= 0 and grey_HW.max() <= 65535:
            return np.repeat((grey_HW >> 8).astype(np.uint8)[..., None], 3, axis=2)
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
    # A copy, because views of PIL's memory are read-only and torch warns of those.
    return np.array(image.convert("RGB"))


def _ids(image: Image.Image, path: str) -> npt.NDArray[Any]:
    if image.mode not in _IDS:
        raise BadSample(
            "label map has colours instead of ids",
            where=path,
            got=f"mode {image.mode}",
            expected="one channel of class ids (8-bit grey or palette, 16-bit grey)",
            cure="Convert colours to ids, or in a folder set list `colours` in classes.toml",
        )
    ids_HW = np.asarray(image)
    return ids_HW.astype(np.uint8) if ids_HW.dtype == bool else ids_HW


def _ids_by_colour(image: Image.Image, path: str, code: LabelCode) -> npt.NDArray[np.uint8]:
    rgb_HWC = _rgb(image, path)
    ids_HW, unknown_HW = ids_from_colours(rgb_HWC, code.colours)
    if unknown_HW.mean() > MAX_UNKNOWN_COLOUR_SHARE:
        colours, counts = np.unique(rgb_HWC[unknown_HW], axis=0, return_counts=True)
        listed = (f"{tuple(c.tolist())} ({n} px)" for c, n in zip(colours, counts, strict=True))
        raise BadSample(
            "label colours that stand for no class",
            where=path,
            got=shortened(list(listed)),
            expected=f"one of {len(code.colours)} colours, exactly",
            cure=code.cure or "Was the label resized smoothly or saved as JPEG? Use the original",
        )
    return ids_HW


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
    return BadSample(
        "not a picture",
        where=path,
        got=f"a file that starts with {start!r}" if start else "an empty file",
        expected=" or ".join(formats),
        cure="Copy it again",
    )


def _unreadable(path: str, error: OSError) -> BadSample:
    if isinstance(error, FileNotFoundError):
        return BadSample(
            "file not found", where=path, cure="Add it, or remove the file it belongs to"
        )
    return BadSample(f"cannot be read ({error.strerror or error})", where=Path(path))


def _size(size_hw: tuple[int, ...]) -> str:
    return f"{size_hw[1]}x{size_hw[0]}"
