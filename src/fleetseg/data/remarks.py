"""Remarks on what is legal in a data set but rarely intended, for `data check` and run notes.

Suffix: C = class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import IGNORE
from fleetseg.text import listing

DARK = 32
"""An image with no pixel this bright is nearly black."""


def class_remarks(
    classes: Sequence[str], pixels_C: npt.NDArray[np.int64], void_pixels: int, *, own: bool
) -> list[str]:
    """Note classes that never occur, and how to declare a class that was read as void.

    `own` says that a classes.toml defines the values in the labels.
    """
    if len(classes) == 1:
        return [
            f"{classes[0]} is the only class, so every labelled pixel has it and a model cannot "
            "learn to tell it from anything; consider a second class for the rest"
        ]
    missing = [i for i, pixels in enumerate(pixels_C) if pixels == 0]
    void = void_pixels / max(int(pixels_C.sum()) + void_pixels, 1)
    if not missing or len(missing) == len(classes):
        return []
    listed = listing([f"{i} {classes[i]}" for i in missing], 8)
    note = f"class {listed} never occurs" if len(missing) == 1 else f"classes {listed} never occur"
    note += " in a label"
    if not void_pixels:
        return [note]
    note += f", while {void:.1%} of the pixels are void ({IGNORE})"
    if own:
        values = [i for i in range(len(classes)) if i not in missing] + [IGNORE]
        example = f", e.g. `values = {values}`" if len(values) == len(classes) else ""
        note += (
            f": if {IGNORE} stands for a class in these masks (as in masks of 0 and {IGNORE}), "
            f"write the value of each class under `values` in classes.toml{example}"
        )
    return [note]


def dark_remarks(
    brightest: Sequence[int], brightest_deep: Sequence[int], total: int, *, own: bool
) -> list[str]:
    """Note images that are nearly black, given each image's brightest value, 0-255.

    Args:
        brightest: of the 8-bit images.
        brightest_deep: of the 16-bit images, of which the high byte is read.
        total: number of images.
        own: whether a classes.toml says how to read them.
    """
    notes = []
    if brightest_deep and max(brightest_deep) < 2 * DARK:
        bits = 8 + max(brightest_deep).bit_length()
        notes.append(
            f"{len(brightest_deep)} of {total} images are 16-bit files and nearly black (dark): "
            f"their brightest value is {max(brightest_deep)} of 255, as if only {bits} bits were "
            f"used. If so, convert them to 8 bits"
            + (f", or, if they are grey, write `bits = {bits}` in classes.toml" if own else "")
        )
    else:
        brightest = [*brightest, *brightest_deep]
    dark = sum(value < DARK for value in brightest)
    if dark:
        notes.append(
            f"{dark} of {total} images are nearly black (dark): no value above {DARK - 1} of 255"
        )
    return notes


def turn_remarks(turns: Counter[str], turned_labels: int, total: int) -> list[str]:
    """Note images with an EXIF orientation, by turn: their labels must be turned too."""
    turned = {turn: n for turn, n in sorted(turns.items()) if turn}
    if not turned and not turned_labels:
        return []
    kinds = ", ".join(f"{n} {turn}" for turn, n in turned.items())
    images = f"{sum(turned.values())} of {total} images have an EXIF orientation ({kinds})"
    if not turned:
        images = "no image has an EXIF orientation"
    labels = f"{turned_labels} labels have one" if turned_labels else "no label has one"
    return [
        f"{images}, {labels}; each file is turned upright by its own orientation: check that "
        "labels were drawn on the upright image, or remove the orientation from the images"
    ]


def one_bit_remarks(one_bit: int, classes: Sequence[str], ids: Sequence[int]) -> list[str]:
    """Note labels of one bit per pixel: what black and white are read as.

    `ids` are the train ids of the values 0 and 1.
    """
    if not one_bit:
        return []
    black, white = (f"id {i} {classes[i]}" if i < len(classes) else "void" for i in ids)
    return [f"{one_bit} labels have one bit per pixel: black is read as {black}, white as {white}"]


def several_remarks(several: int, total: int) -> list[str]:
    """Note images in files that hold more pictures than one."""
    if not several:
        return []
    return [f"{several} of {total} images are files of several pages or frames: the first is read"]


def reason(text: str) -> str:
    """Return what is wrong with a bad sample without the details, for counting by fault.

    >>> reason("label ids outside depot; got 7 (2 px), expected 0-2. Correct the label")
    'label ids outside depot'
    """
    return re.split(r"; |\. | \(", text, maxsplit=1)[0]
