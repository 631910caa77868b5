"""One sample at working resolution and in the fleet's label space, or the reason why not."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fleetseg.data.labels import IGNORE, LabelSpace, Table
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.errors import BadSample

Decoded = tuple[Image_HWC, Label_HW | None]


def decode(
    sample: Sample,
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    table: Table,
    native_labels: bool,
) -> Decoded:
    """Read a sample and bring it to `size_hw` and, by `table`, to the train ids of `space`.

    With `native_labels` the label keeps its own resolution.

    Raises:
        BadSample: the source cannot read it, or what it reads does not fit its own label space.
    """
    image_HWC, label_HW = _checked(source.read(sample), sample, source.space)
    if label_HW is not None:
        label_HW = table[label_HW]
        if not native_labels:
            label_HW = resized_label(label_HW, size_hw)
        if label_HW.min() == IGNORE:
            raise BadSample(
                f"no labelled pixel is left in label space {space.name}",
                where=sample.label,
                cure="Leave the sample out, or choose another data.label_space or data.size",
            )
    return resized_image(image_HWC, size_hw), label_HW


def _checked(pair: Decoded, sample: Sample, space: LabelSpace) -> Decoded:
    """Refuse what a source of the user's own could get wrong; the built-in ones never do."""
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
    """Return an image at `size_hw`; bilinear, with a filter that widens when shrinking."""
    if image_HWC.shape[:2] == size_hw:
        return image_HWC
    height, width = size_hw
    # Unlike OpenCV's and torch's default, PIL's bilinear filter does not alias.
    return np.asarray(Image.fromarray(image_HWC).resize((width, height), Image.Resampling.BILINEAR))


def resized_label(label_HW: Label_HW, size_hw: tuple[int, int]) -> Label_HW:
    """Return a label map at `size_hw`; nearest, with pixel centres at half-pixels as for images.

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
