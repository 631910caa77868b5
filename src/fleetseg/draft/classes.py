"""Draft a classes.toml from the values in masks, where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fleetseg.data.labels import IDD_7, IGNORE, LABEL_SPACES, Colour
from fleetseg.data.sources.label_encoding import train_id_code
from fleetseg.data.sources.reading import LABEL_FORMATS, read_label
from fleetseg.errors import BadSample, DataError
from fleetseg.experiment_file import toml_value

_MOST = 100  # more values than classes of a road scene are soft edges, instances or a photo
_LOOKED_AT = 500  # masks, evenly spaced
_ID_MODES = ("1", "L", "P", "I", "I;16")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX")
_BLACK = (0, 0, 0)


@dataclass
class _Values:
    """The values in masks: ids in single-channel masks, colours in the others."""

    ids: set[int] = field(default_factory=set)
    colours: set[Colour] = field(default_factory=set)
    unreadable: int = 0

    def add(self, path: str) -> None:
        """Read one mask; unreadable ones are counted, and described by `data check`."""
        try:
            with Image.open(path, formats=LABEL_FORMATS) as image:
                if image.mode in _ID_MODES:
                    self.ids |= {int(value) for value in np.unique(np.array(image))}
                elif image.mode in _COLOUR_MODES:
                    self.colours |= _colours(np.array(image.convert("RGB")))
                else:
                    self.unreadable += 1
        except Exception:  # PIL raises all kinds of errors
            self.unreadable += 1


def draft_classes(masks: Sequence[str], folder: Path) -> str:
    """Write the text of a classes.toml for masks that have none.

    Ids become classes in ascending order; colours become the classes of a built-in label space if
    it contains them all.

    Args:
        masks: paths of mask files.
        folder: their folder, for errors.

    Raises:
        DataError: no mask can be read, or their values cannot be classes.
    """
    values, step = _Values(), max(1, len(masks) // _LOOKED_AT)
    looked_at = masks[::step]
    for path in looked_at:
        values.add(path)
    if values.ids and values.colours:
        raise DataError(
            "some masks have ids and others colours", where=folder, cure="Convert them to one kind"
        )
    if not values.ids and not values.colours:
        got = f"{len(masks)} files" + (f"; {_trouble(masks[0])}" if masks else "")
        raise DataError("no mask can be read", where=folder, got=got)
    count = len(values.ids or values.colours)
    if count > _MOST:
        raise DataError(
            "masks hold too many values to be classes",
            where=folder,
            got=f"{count} different values",
            expected=f"at most {_MOST}",
            cure="Save masks as PNG without soft edges, with classes and not instances",
        )
    lines = _of_ids(values.ids) if values.ids else _of_colours(values.colours)
    head = f"# Drafted from {len(looked_at)} masks. Give the classes names; keep their order.\n"
    return head + "".join(f"{line}\n" for line in lines)


def _trouble(path: str) -> str:
    """Say what a run would say of a mask that cannot be read."""
    try:
        read_label(path, space=IDD_7, code=train_id_code(IDD_7))
    except BadSample as error:
        return str(error)
    return ""


def _of_ids(ids: set[int]) -> list[str]:
    if ids == {0, IGNORE}:
        return ['classes = ["background", "foreground"]', f"values = [0, {IGNORE}]", *_CRITICAL]
    if max(ids) > IGNORE:
        raise DataError(
            "ids in masks are 0 to 255", got=max(ids), cure="Are these masks of instances?"
        )
    if min(ids) < 0:
        raise DataError(
            "ids in masks are 0 to 255",
            got=min(ids),
            cure=f"Write {IGNORE} for pixels without a class",
        )
    kept = sorted(ids - {IGNORE})
    lines = [f"classes = {toml_value([f'class_{i}' for i in kept])}"]
    if kept != list(range(len(kept))):
        lines.append(f"values = {toml_value(kept)}  # the id of each class in the masks")
    if IGNORE in ids:
        lines.append(f"# {IGNORE} is void, and ignored. Other void ids: ignore = [254]")
    return [*lines, *_CRITICAL]


def _of_colours(colours: set[Colour]) -> list[str]:
    for name, space in LABEL_SPACES.items():
        if len(colours - {_BLACK}) > 1 and colours - {_BLACK} <= set(space.colours):
            void = _BLACK in colours and _BLACK not in space.colours
            lines = [f"space = {toml_value(name)}  # every colour is one of its classes'"]
            return [*lines, "ignore = [[0, 0, 0]]  # void"] if void else lines
    kept = sorted(colours)
    listed = [list(colour) for colour in kept]
    lines = [
        f"classes = {toml_value([f'class_{i}' for i in range(len(kept))])}",
        f"colours = {toml_value(listed)}",
    ]
    if _BLACK in colours:
        lines.append(
            "# Black often means void: then remove it from both, and set ignore = [[0, 0, 0]]"
        )
    return [*lines, *_CRITICAL]


_CRITICAL = ["critical = []  # classes whose misses hurt people: they get a score of their own"]


def _colours(mask_HWC: npt.NDArray[np.uint8]) -> set[Colour]:
    packed_HW = mask_HWC.astype(np.int32) @ np.array([65536, 256, 1], dtype=np.int32)
    return {(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in np.unique(packed_HW)}
