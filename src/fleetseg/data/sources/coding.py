"""How the values in label files become train ids, and what to do about values that mean nothing."""

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


@dataclass(frozen=True, eq=False)
class LabelCode:
    """How the values in label files become train ids.

    `table` maps raw ids to train ids; raw ids outside `known` mean nothing and make the sample
    bad. With `colours`, an RGB file is decoded first: colour i is raw id i.
    """

    table: Table
    known: tuple[int, ...]
    expected: str  # the known ids in words
    colours: tuple[Colour, ...] = ()
    always_colours: bool = False  # grey and palette files too are read by colour
    cure: str = ""  # for unknown ids


def train_id_code(
    space: LabelSpace,
    *,
    ignore: tuple[int, ...] = (),
    colours: tuple[Colour, ...] = (),
    cure: str = "",
) -> LabelCode:
    """Return the code of files that hold train ids of `space`; `ignore` lists more void ids."""
    # An id listed under ignore is void even if it is a class id.
    kept = {i: i for i in range(space.num_classes) if i not in ignore}
    void = sorted({IGNORE, *ignore})
    return LabelCode(
        table=make_table(kept),
        known=tuple(sorted({*range(space.num_classes), *void})),
        expected=f"0-{space.num_classes - 1}, or {', '.join(map(str, void))} to ignore",
        colours=colours,
        cure=cure,
    )


def to_train_ids(
    ids_HW: npt.NDArray[Any], path: str, *, space: LabelSpace, code: LabelCode
) -> Label_HW:
    """Return the train ids, uint8, of raw ids of any integer type read from `path`.

    Raises:
        BadSample: some ids mean nothing; lists them with their pixel counts and the cure.
    """
    known = np.zeros(256, dtype=bool)
    known[list(code.known)] = True
    in_range = ids_HW.dtype == np.uint8 or (ids_HW.min() >= 0 and ids_HW.max() <= 255)
    if not in_range or not known[ids_HW].all():
        raise _unknown_ids(ids_HW, path, space, code)
    train_ids_HW: Label_HW = code.table[ids_HW]
    return train_ids_HW


def _unknown_ids(
    ids_HW: npt.NDArray[Any], path: str, space: LabelSpace, code: LabelCode
) -> BadSample:
    ids, counts = np.unique(ids_HW, return_counts=True)
    listed = [(int(i), int(n)) for i, n in zip(ids, counts, strict=True) if i not in code.known]
    return BadSample(
        f"label ids outside {space.name}",
        where=path,
        got=shortened([f"{i} ({n} px)" for i, n in listed]),
        expected=code.expected,
        cure=_cure([i for i, _ in listed], space, code),
    )


def _cure(unknown: list[int], space: LabelSpace, code: LabelCode) -> str:
    if max(unknown) >= 1000:
        return "These look like Cityscapes instance ids: use the labelIds file"
    if code.cure:
        return code.cure
    if space.classes == CITYSCAPES_19.classes and max(unknown) < CITYSCAPES_RAW_IDS:
        return "These are raw Cityscapes ids: use kind = 'cityscapes', or convert to train ids"
    if unknown == [space.num_classes]:
        return (
            f"If {unknown[0]} means void (as 11 does in SegNet's CamVid), "
            f"write `ignore = [{unknown[0]}]` in classes.toml"
        )
    return "Correct the label, or list ids that mean void under `ignore` in classes.toml"


def shortened(items: list[str], limit: int = 8) -> str:
    """Join the first items with commas and tell how many are left out."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")
