"""Detect images whose aspect ratio differs from that of `data.size` and will be distorted."""

from __future__ import annotations

import math
from collections.abc import Mapping

Size_HW = tuple[int, int]
_TOLERANCE = 0.05  # of the aspect ratio, either way; a smaller distortion goes unnoticed
_STEPS = (32, 16, 8, 4, 2, 1)  # preferred divisors of the sides of a size, best first


def aspect_note(
    name: str, counts: Mapping[Size_HW, int], size_hw: Size_HW, what: str = "data.size"
) -> str | None:
    """Return a note on how many images of a source will be distorted and which size fits better.

    Args:
        name: name of the source.
        counts: image size -> number of images.
        size_hw: the working size.
        what: what the note calls the working size.
    """
    squeezed = {hw: n for hw, n in counts.items() if aspect_off(hw, size_hw) > _TOLERANCE}
    if not squeezed:
        return None
    usual = max(squeezed, key=lambda hw: (squeezed[hw], hw))
    off = aspect_off(usual, size_hw)
    others = len(squeezed) - 1
    height, width = suggested_size(usual, size_hw)
    return (
        f"{name}: {sum(squeezed.values()):,} of {sum(counts.values()):,} images are squeezed to "
        f"{what} = [{size_hw[0]}, {size_hw[1]}] from {usual[0]} x {usual[1]} (height x width)"
        + (f" and {others} other size{'s' * (others != 1)}" if others else "")
        + f", aspect ratio off by {off:.0%}: set data.size = [{height}, {width}]"
    )


def aspect_off(image_hw: Size_HW, size_hw: Size_HW) -> float:
    """Return the relative change of the aspect ratio; 0 = it is kept."""
    ratio = image_hw[0] * size_hw[1] / (image_hw[1] * size_hw[0])
    return max(ratio, 1 / ratio) - 1


def suggested_size(image_hw: Size_HW, size_hw: Size_HW) -> Size_HW:
    """Return a working size with the image's aspect ratio and about as many pixels as `size_hw`.

    >>> suggested_size((1024, 2048), (192, 256))
    (160, 320)
    """
    pixels = size_hw[0] * size_hw[1]
    height = math.sqrt(pixels * image_hw[0] / image_hw[1])
    for step in _STEPS:
        around = [max(step, step * (round(height / step) + shift)) for shift in (-1, 0, 1)]
        sizes = {(h, max(step, step * round(h * image_hw[1] / image_hw[0] / step))) for h in around}
        good = [hw for hw in sizes if aspect_off(image_hw, hw) <= _TOLERANCE / 2]
        near = [hw for hw in good if 0.6 < hw[0] * hw[1] / pixels < 1.6]
        if near:
            return min(near, key=lambda hw: (abs(math.log(hw[0] * hw[1] / pixels)), hw))
    return max(1, round(height)), max(1, round(pixels / height))
