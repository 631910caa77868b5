"""How values in label files map to train ids, and advice for values that are unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import (
    CITYSCAPES_19,
    CITYSCAPES_RAW_IDS,
    IGNORE,
    Colour,
    LabelSpace,
    Table,
    make_table,
)
from fleetseg.data.sample import Label_HW
from fleetseg.errors import BadSample
from fleetseg.text import listing

_MANY = 16  # more unknown ids than anyone would list by hand


@dataclass(frozen=True, eq=False)
class LabelEncoding:
    """How values in label files map to train ids.

    `table` maps raw ids to train ids; raw ids outside `known` are unknown and make the sample bad.
    With `colours`, colour i of a colour-coded file is train id `colour_ids[i]`.

    With `palette`, palette files are read by id, and each id used must have the colour given there;
    every pixel of a colour-coded file must then have one of `colours`. Otherwise a few pixels of
    stray colours are ignored.
    """

    table: Table
    known: tuple[int, ...]
    expected: str  # the known ids in words
    colours: tuple[Colour, ...] = ()
    colour_ids: tuple[int, ...] = ()  # IGNORE = a colour that means void
    always_colours: bool = False  # read grey and palette files by colour too
    palette: tuple[Colour, ...] = ()  # colour of each raw id; a colour may stand for several
    cure: str = ""  # for unknown ids; "" = the encoding comes from a classes.toml
    void_cure: str = ""  # for a label that is all void


def train_id_code(
    space: LabelSpace,
    *,
    ignore: tuple[int, ...] = (),
    colours: tuple[Colour, ...] = (),
    void_colours: tuple[Colour, ...] = (),
    values: tuple[int, ...] = (),
    cure: str = "",
) -> LabelEncoding:
    """Return the encoding of files that hold train ids of `space`, or one of `values` per class.

    `ignore` lists additional void ids, `void_colours` colours that mean void.
    """
    classes = values or tuple(range(space.num_classes))
    # An id listed under ignore is void even if it is a class id.
    kept = {raw: i for i, raw in enumerate(classes) if raw not in ignore}
    void = sorted({IGNORE, *ignore} - kept.keys())
    expected = ", ".join(map(str, values)) if values else f"0-{space.num_classes - 1}"
    return LabelEncoding(
        table=make_table(kept),
        known=tuple(sorted({*classes, *void})),
        expected=expected + (f", or {', '.join(map(str, void))} to ignore" if void else ""),
        colours=(*colours, *void_colours),
        colour_ids=(*range(len(colours)), *(IGNORE for _ in void_colours)),
        cure=cure,
    )


def to_train_ids(
    ids_HW: npt.NDArray[Any], path: str, *, space: LabelSpace, code: LabelEncoding
) -> Label_HW:
    """Return the train ids, uint8, of raw ids of any integer type read from `path`.

    Raises:
        BadSample: some ids are unknown; lists them with their pixel counts and the cure.
    """
    known = np.zeros(256, dtype=bool)
    known[list(code.known)] = True
    in_range = ids_HW.dtype == np.uint8 or (ids_HW.min() >= 0 and ids_HW.max() <= 255)
    if not in_range or not known[ids_HW].all():
        raise _unknown_ids(ids_HW, path, space, code)
    train_ids_HW: Label_HW = code.table[ids_HW]
    return train_ids_HW


def _unknown_ids(
    ids_HW: npt.NDArray[Any], path: str, space: LabelSpace, code: LabelEncoding
) -> BadSample:
    ids, counts = np.unique(ids_HW, return_counts=True)
    count_of = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    unknown = [i for i in count_of if i not in code.known]
    return BadSample(
        f"label ids outside {space.name}",
        where=path,
        got=listing([f"{i} ({count_of[i]} px)" for i in unknown], 8),
        expected=code.expected,
        cure=_cure(list(count_of), unknown, space, code),
    )


def _cure(found: list[int], unknown: list[int], space: LabelSpace, code: LabelEncoding) -> str:
    if max(unknown) > IGNORE:
        return _cure_of_large_ids(found, unknown)
    if min(unknown) < 0:
        return f"Write {IGNORE} for pixels without a class: there are no negative ids"
    if code.cure:
        return code.cure
    if space.classes == CITYSCAPES_19.classes and max(unknown) < CITYSCAPES_RAW_IDS:
        return "These are raw Cityscapes ids: use kind = 'cityscapes', or convert to train ids"
    if len(unknown) > _MANY:
        return (
            "So many different ids are usually caused by smooth resizing, smooth edges or JPEG: "
            "use the original label"
        )
    values = f"write `values = {found}` in classes.toml"
    if unknown == [space.num_classes]:
        void = (
            f"If {unknown[0]} means void (as 11 does in SegNet's CamVid), "
            f"write `ignore = [{unknown[0]}]` in classes.toml"
        )
        from_1 = f"`values = {list(range(1, space.num_classes + 1))}`"
        return void if 0 in found else f"{void}; if ids start at 1, {from_1}"
    if len(found) == space.num_classes:
        return f"If these are the {len(found)} classes in their order, {values}"
    if len(found) == space.num_classes + 1 and IGNORE in found:
        values = values.replace(f", {IGNORE}]", "]")
        return f"If all but {IGNORE} are the classes in their order, {values}"
    return (
        "Correct the label, list ids that mean void under `ignore` in classes.toml, or the value "
        "of each class under `values`"
    )


def _cure_of_large_ids(found: list[int], unknown: list[int]) -> str:
    for step in (257, 256):
        if all(i % step == 0 for i in found):
            return f"These look like 8-bit ids stretched to 16 bits: save id / {step} as 8-bit PNG"
    if all(1000 <= i < 1000 * CITYSCAPES_RAW_IDS for i in unknown if i > IGNORE):
        return "These look like Cityscapes instance ids: use the labelIds file"
    return "Class ids are 0-255: is this a depth map or an instance map? Use the class labels"
