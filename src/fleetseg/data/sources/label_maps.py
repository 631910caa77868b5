"""Convert the pixels of a label file to train ids, by value or by colour.

A palette file has both. If its colours are those of the classes, the colours decide, because the
indices depend on the tool that wrote the file; if the two contradict each other, the file is bad.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fleetseg.data.labels import IGNORE, Colour, LabelSpace, ids_from_colours
from fleetseg.data.sample import Label_HW
from fleetseg.data.sources.label_encoding import LabelEncoding, to_train_ids
from fleetseg.errors import BadSample
from fleetseg.text import listing

MAX_UNKNOWN_COLOUR_SHARE = 0.001
"""Stray pixels ignored in a colour-coded label; a larger share indicates another palette."""

GREY_16 = ("I;16", "I;16B", "I;16L", "I")  # older Pillows open 16-bit grey PNG as "I"
_IDS = ("1", "L", "P", *GREY_16)
_PALETTE, _COLOUR = ("P", "PA"), ("RGB", "RGBA", "RGBX")
_FEW = 4  # unknown colours that may be classes or void; more than that are due to blending


def train_ids(image: Image.Image, path: str, *, space: LabelSpace, code: LabelEncoding) -> Label_HW:
    """Return the train ids of a decoded label file, uint8, shape (height, width).

    Raises:
        BadSample: unknown ids or colours, or colours instead of ids.
    """
    if code.palette and image.mode == "P":
        _require_palette(image, path, code)
        return to_train_ids(np.asarray(image), path, space=space, code=code)
    by_colour = code.always_colours or image.mode in _COLOUR
    if code.colours and image.mode in _PALETTE and not by_colour:
        by_colour = _palette_rules(image, path, code)
    if code.colours and by_colour:
        return _ids_of_colours(image, path, code)
    return to_train_ids(_values(image, path), path, space=space, code=code)


def _values(image: Image.Image, path: str) -> npt.NDArray[Any]:
    if image.mode in ("LA", "PA") and image.getchannel("A").getextrema() == (255, 255):
        image = image.getchannel(0)
    if image.mode in ("F", "LA", "PA"):
        raise _no_plain_ids(image, path)
    if image.mode not in _IDS:
        first, *others = (np.asarray(band) for band in image.convert("RGB").split())
        equal = image.mode in _COLOUR and all((first == other).all() for other in others)
        raise BadSample(
            "label map has colours instead of ids",
            where=path,
            got=f"mode {image.mode}" + (" with equal channels" if equal else ""),
            expected="one channel of class ids (8-bit grey or palette, 16-bit grey)",
            cure="Save one of the channels as 8-bit grey, if its values are ids"
            if equal
            else "Convert colours to ids, or for a folder of images list `colours` in classes.toml",
        )
    ids_HW = np.asarray(image)
    return ids_HW.astype(np.uint8) if ids_HW.dtype == bool else ids_HW


def _no_plain_ids(image: Image.Image, path: str) -> BadSample:
    is_float = image.mode == "F"
    return BadSample(
        "label map in floating point" if is_float else "label map with transparent pixels",
        where=path,
        got=f"mode {image.mode}",
        expected="one channel of class ids (8-bit grey or palette, 16-bit grey)",
        cure="Save the ids as 8-bit grey"
        if is_float
        else f"Remove the alpha channel, and write {IGNORE} where it means void",
    )


def _palette_rules(image: Image.Image, path: str, code: LabelEncoding) -> bool:
    """Return whether to read a palette file by its colours.

    If each class colour that the file uses is at the index of its class, or if it uses none, the
    indices are ids.

    Raises:
        BadSample: the palette contradicts the ids.
    """
    id_of = dict(zip(code.colours, code.colour_ids, strict=True))
    used = _used_colours(image)
    named = {index: id_of[colour] for index, colour in used.items() if colour in id_of}
    if all(index in code.known and code.table[index] == id_ for index, id_ in named.items()):
        return False
    if len(named) < len(used) and not _mostly_named(image, list(named)):
        listed = [f"{i} {used[i]}" for i in used if i not in named]
        raise BadSample(
            "the palette contradicts the ids: class colours are at indices of other classes",
            where=path,
            got=f"colours of no class at {listing(listed, 8)}",
            expected="that all used colours of the palette are class colours, or none is",
            cure="Save the ids as 8-bit grey to use ids; to use colours, list those that mean "
            "void under `ignore` in classes.toml",
        )
    return True


def _require_palette(image: Image.Image, path: str, code: LabelEncoding) -> None:
    """Refuse a palette file in which an id does not have its published colour."""
    for index, colour in _used_colours(image).items():
        if index >= len(code.palette) or colour == code.palette[index]:
            continue  # ids without a published colour are checked as ids later
        found_HW = np.asarray(image) == index
        raise BadSample(
            "label colours of no class"
            if colour not in code.palette
            else "the palette contradicts the ids",
            where=path,
            got=f"{colour} at id {index} ({int(found_HW.sum())} px, {_first(found_HW)})",
            expected=f"{code.palette[index]} there",
            cure=code.cure,
        )


def _first(found_HW: npt.NDArray[np.bool_]) -> str:
    row, column = np.argwhere(found_HW)[0].tolist()
    return f"first at row {row}, column {column}"


def _used_colours(image: Image.Image) -> dict[int, Colour]:
    indices = np.unique(np.asarray(image.getchannel(0) if image.mode == "PA" else image)).tolist()
    flat = image.getpalette("RGB") or []
    flat += [0] * (3 * 256 - len(flat))
    return {i: (flat[3 * i], flat[3 * i + 1], flat[3 * i + 2]) for i in indices}


def _mostly_named(image: Image.Image, named: list[int]) -> bool:
    indices_HW = np.asarray(image.getchannel(0) if image.mode == "PA" else image)
    return bool(1 - np.isin(indices_HW, named).mean() <= MAX_UNKNOWN_COLOUR_SHARE)


def _ids_of_colours(image: Image.Image, path: str, code: LabelEncoding) -> Label_HW:
    if image.mode in GREY_16:
        raise BadSample(
            "label map has no colours",
            where=path,
            got="16-bit grey",
            expected=f"one of {len(code.colours)} colours",
            cure="Use the colour-coded label",
        )
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb_HWC = np.array(image.convert("RGB"))
    indices_HW, unknown_HW = ids_from_colours(rgb_HWC, code.colours)
    if "A" in image.getbands():  # a transparent pixel of an unknown colour is undrawn, hence void
        unknown_HW &= np.asarray(image.getchannel("A")) > 0
    if unknown_HW.mean() > (0 if code.palette else MAX_UNKNOWN_COLOUR_SHARE):
        raise _unknown_colours(rgb_HWC[unknown_HW], _first(unknown_HW), path, code)
    id_of = np.full(256, IGNORE, dtype=np.uint8)
    id_of[: len(code.colour_ids)] = code.colour_ids
    return id_of[indices_HW]


def _unknown_colours(
    rgb_NC: npt.NDArray[np.uint8], first: str, path: str, code: LabelEncoding
) -> BadSample:
    colours, counts = np.unique(rgb_NC, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    listed = [f"{tuple(colours[i].tolist())} ({counts[i]} px)" for i in order]
    if {tuple(colour[::-1].tolist()) for colour in colours} <= set(code.colours):
        cure = "Its channels are blue, green, red, as OpenCV has them: save mask[..., ::-1]"
    elif code.cure:
        cure = code.cure
    elif len(listed) <= _FEW:
        void = colours[order[0]].tolist()
        cure = f"If {tuple(void)} means void, write `ignore = [{void}]` in classes.toml"
    else:
        cure = "Was the label resized smoothly, drawn with smooth edges or saved as JPEG? "
        cure += "Use the original"
    return BadSample(
        "label colours of no class",
        where=path,
        got=f"{listing(listed, 8)}, {first}",
        expected=f"one of {len(code.colours)} colours, exactly",
        cure=cure,
    )
