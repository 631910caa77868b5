"""Decode one sample to working resolution and the fleet's label space, or say why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from fleetseg.data.labels import IGNORE, LabelSpace, Table
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources import reading
from fleetseg.errors import BadSample

T = TypeVar("T")
Size_HW = tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """What to decode of each sample of a source."""

    source: Source
    size_hw: Size_HW | None  # of images; None = native
    space: LabelSpace
    table: Table  # train ids of the source -> train ids of `space`
    images: bool
    label_sizes: tuple[Size_HW | None, ...]  # None = native


@dataclass(frozen=True)
class Decoded:
    """The result for one sample; an unusable part is replaced by the BadSample that explains it."""

    image: Image_HWC | BadSample | None  # None: not requested
    native_hw: Size_HW | None  # of the image; None: unknown
    labels: tuple[Label_HW | BadSample | None, ...]  # one for each size; None: unlabelled


def decode(sample: Sample, native_hw: Size_HW | None, wanted: Wanted) -> Decoded:
    """Read the wanted parts of a sample; the label without its image if the source allows that.

    `native_hw` is the size of the image, if known.
    """
    how = file_settings(wanted.source)
    image: Image_HWC | BadSample | None
    label: Label_HW | BadSample | None
    if how is None:
        image, label = _both(sample, wanted.source)
    else:
        image = None
        if wanted.images:
            image = _attempt(lambda: read_image_of(sample, wanted.source))
        if isinstance(image, np.ndarray):
            native_hw = image.shape[0], image.shape[1]
        label = None
        if wanted.label_sizes:
            label = _attempt(lambda: _label(sample, native_hw, how))
    if isinstance(image, np.ndarray):
        native_hw = image.shape[0], image.shape[1]
        image = image if wanted.size_hw is None else resized_image(image, wanted.size_hw)
    sizes = wanted.label_sizes
    return Decoded(image, native_hw, tuple(_flavour(sample, label, to, wanted) for to in sizes))


def read_image_of(sample: Sample, source: Source) -> Image_HWC:
    """Return an image at its native size, without reading its label if the source allows that.

    Raises:
        BadSample: it cannot be read.
    """
    if file_settings(source) is None:
        return _checked(source.read(sample), sample, source.space)[0]
    return reading.read_image(sample.image, **image_settings(source))


def file_settings(source: Source) -> dict[str, Any] | None:
    """Return a source's arguments to `read_sample`; None if it uses another function."""
    read = source.read
    if not isinstance(read, partial) or read.func is not reading.read_sample or read.args:
        return None
    return dict(read.keywords)


def image_settings(source: Source) -> dict[str, Any]:
    """Return those of a source's reading settings that affect images."""
    how = source.read.keywords if isinstance(source.read, partial) else {}
    return {name: value for name, value in how.items() if name not in ("space", "code")}


def _both(
    sample: Sample, source: Source
) -> tuple[Image_HWC | BadSample, Label_HW | BadSample | None]:
    pair = _attempt(lambda: _checked(source.read(sample), sample, source.space))
    if isinstance(pair, BadSample):
        return pair, pair
    return pair[0], None if sample.label is None else pair[1]


def _label(sample: Sample, native_hw: Size_HW | None, how: dict[str, Any]) -> Label_HW | None:
    """Read a label, and the header of its image if the size is not yet known."""
    known = native_hw is not None
    size_hw = native_hw or reading.image_size(sample.image)
    try:
        return reading.read_label_of(sample, size_hw, space=how["space"], code=how["code"])
    except BadSample:
        if known:
            raise
        return reading.read_sample(sample, **how)[1]  # headers do not say everything


def _attempt(work: Callable[[], T]) -> T | BadSample:
    try:
        return work()
    except BadSample as error:
        return error


def _flavour(
    sample: Sample, label: Label_HW | BadSample | None, size_hw: Size_HW | None, wanted: Wanted
) -> Label_HW | BadSample | None:
    """Map a label to the label space and resize it; bad if no labelled pixel is left."""
    if not isinstance(label, np.ndarray):
        return label
    label_HW = wanted.table[label]
    if size_hw is not None:
        label_HW = resized_label(label_HW, size_hw)
    if label_HW.min() < IGNORE:
        return label_HW
    return BadSample(
        f"no labelled pixel is left in label space {wanted.space.name}",
        where=sample.label,
        cure="Leave the sample out, or choose another data.label_space or data.size",
    )


def _checked(
    pair: tuple[Image_HWC, Label_HW | None], sample: Sample, space: LabelSpace
) -> tuple[Image_HWC, Label_HW | None]:
    """Check for mistakes that a user-defined source could make; built-in ones never do."""
    image_HWC, label_HW = pair
    where = sample.label or sample.image
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        got = f"{image_HWC.dtype} {image_HWC.shape}"
        raise BadSample("not RGB", where=sample.image, got=got, expected="uint8 (H, W, 3)")
    if label_HW is None:
        return pair
    if label_HW.dtype != np.uint8 or label_HW.shape != image_HWC.shape[:2]:
        got = f"{label_HW.dtype} {label_HW.shape}"
        expected = f"uint8 {image_HWC.shape[:2]}"
        raise BadSample("label does not fit its image", where=where, got=got, expected=expected)
    found = np.flatnonzero(np.bincount(label_HW.ravel(), minlength=256))
    unknown = [int(i) for i in found if space.num_classes <= i != IGNORE]
    if unknown:
        raise BadSample(
            f"label ids {unknown} are outside {space.name}",
            where=where,
            expected=f"0-{space.num_classes - 1} or {IGNORE} to ignore",
            cure="Turn raw ids into train ids where the source reads labels",
        )
    return pair


def resized_image(image_HWC: Image_HWC, size_hw: tuple[int, int]) -> Image_HWC:
    """Resize an image to `size_hw`: bilinear, with antialiasing when shrinking."""
    if image_HWC.shape[:2] == size_hw:
        return image_HWC
    height, width = size_hw
    # Unlike the defaults of OpenCV and torch, PIL's bilinear filter does not alias.
    return np.asarray(Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR))


def resized_label(label_HW: Label_HW, size_hw: tuple[int, int]) -> Label_HW:
    """Resize a label map to `size_hw`: nearest neighbour, with half-pixel centres as for images.

    >>> resized_label(np.array([[0, 1, 2, 3]], dtype=np.uint8), (1, 2)).tolist()
    [[1, 3]]
    """
    if label_HW.shape == size_hw:
        return label_HW
    rows, columns = (
        (2 * np.arange(to) + 1) * have // (2 * to)
        for have, to in zip(label_HW.shape, size_hw, strict=True)
    )
    return label_HW[np.ix_(rows, columns)]
