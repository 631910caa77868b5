"""Figures for people: image, truth and predictions side by side, with a legend of classes.

All drawing is done with PIL. Sizes are pixels of the finished figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fleetseg.data.labels import IGNORE, Colour, LabelSpace, Table
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.errors import DataError

Row = tuple[Image_HWC, Label_HW | None, Mapping[str, Label_HW]]
"""Content of one row: the image, its truth (if there is one), predictions by name."""

BACKGROUND = (250, 250, 248)
_INK = (36, 38, 43)
_FAINT = (108, 112, 120)
_RULE = (222, 222, 218)
_MARGIN = 28  # around the picture, and above the legend
_GAP = 14  # between panels of a row
_ROW_GAP = 22  # between rows
_PANEL_WIDTHS = (400, 640)  # smaller images are enlarged, larger ones shrunk, others kept
_HEAD_SIZE, _TEXT_SIZE = 18, 15  # font sizes
_HEAD_HEIGHT, _TITLE_HEIGHT = 32, 26  # of the column heads, of a row's title
_SWATCH, _LEGEND_HEIGHT = 16, 26  # of a colour sample, of a line of the legend


def colourise(label_HW: Label_HW, space: LabelSpace) -> npt.NDArray[np.uint8]:
    """Return train ids in the colours of their space, shape (H, W, 3); ignored pixels are black.

    Raises:
        DataError: an id is neither a class nor IGNORE.
    """
    wrong = [i for i in _ids(label_HW) if i != IGNORE and i >= space.num_classes]
    if wrong:
        raise DataError(
            f"ids outside label space '{space.name}'",
            got=wrong[:8],
            expected=f"0 to {space.num_classes - 1} or {IGNORE}",
        )
    return _palette(space)[label_HW]


def _ids(label_HW: Label_HW) -> list[int]:
    """Return the ids that occur, sorted; np.unique would sort all pixels."""
    return [int(i) for i in np.flatnonzero(np.bincount(label_HW.ravel()))]


def _palette(space: LabelSpace) -> npt.NDArray[np.uint8]:
    """Return the colour of every possible id, shape (256, 3); black if the id is not a class."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: space.num_classes] = space.colours
    return palette


def palette_image(
    label_HW: Label_HW, space: LabelSpace, raw_ids: Table | None = None
) -> Image.Image:
    """Return train ids as a palette image: pixels are ids, viewers show the space's colours.

    With `raw_ids`, a table train id -> raw id, pixels are raw ids; the colours are the same.
    """
    ids_HW, palette = label_HW, _palette(space)
    if raw_ids is not None:
        ids_HW, by_train_id = raw_ids[label_HW], palette
        palette = np.zeros_like(by_train_id)
        palette[raw_ids[: space.num_classes]] = by_train_id[: space.num_classes]
    image = Image.fromarray(np.ascontiguousarray(ids_HW)).convert("L")
    image.putpalette(palette.tobytes())
    return image


def overlay(image_HWC: Image_HWC, label_HW: Label_HW, space: LabelSpace) -> Image.Image:
    """Blend class colours into an image of the same size; ignored pixels stay unchanged.

    Raises:
        DataError: the sizes differ, or an id is neither a class nor IGNORE.
    """
    if image_HWC.shape[:2] != label_HW.shape:
        raise DataError(
            "image and map differ in size", got=label_HW.shape, expected=image_HWC.shape[:2]
        )
    blended_HWC = (image_HWC.astype(np.uint16) + colourise(label_HW, space)) // 2
    kept_HW = label_HW == IGNORE
    blended_HWC[kept_HW] = image_HWC[kept_HW]
    return Image.fromarray(blended_HWC.astype(np.uint8))


def side_by_side(
    image_HWC: Image_HWC,
    label_HW: Label_HW | None,
    preds: Mapping[str, Label_HW],
    space: LabelSpace,
) -> Image.Image:
    """Show an image, its truth and each named prediction in a row, above a legend.

    Label maps may have another resolution than the image.
    """
    return _sheet([(image_HWC, label_HW, preds)], None, space)


def contact_sheet(rows: Sequence[Row], titles: Sequence[str], space: LabelSpace) -> Image.Image:
    """Show several frames below each other, each with a title, above a common legend.

    Raises:
        DataError: there are no rows, not one title per row, or rows differ in their columns.
    """
    if not rows or len(titles) != len(rows):
        raise DataError(
            "a contact sheet needs one title for each row",
            got=f"{len(rows)} rows and {len(titles)} titles",
        )
    columns = {(label_HW is not None, *preds) for _, label_HW, preds in rows}
    if len(columns) > 1:
        raise DataError("the rows of a contact sheet differ in their columns", got=sorted(columns))
    return _sheet(rows, titles, space)


def _sheet(rows: Sequence[Row], titles: Sequence[str] | None, space: LabelSpace) -> Image.Image:
    width = min(max(_PANEL_WIDTHS[0], *(row[0].shape[1] for row in rows)), _PANEL_WIDTHS[1])
    panels = [_panels(row, space, width) for row in rows]
    heads = ["image", *(["truth"] if rows[0][1] is not None else []), *rows[0][2]]
    lefts = [_MARGIN + i * (width + _GAP) for i in range(len(heads))]
    inner_width = lefts[-1] + width - _MARGIN
    title_height = 0 if titles is None else _TITLE_HEIGHT
    rows_height = sum(title_height + row[0].height + _ROW_GAP for row in panels) - _ROW_GAP
    key = legend(_legend_entries(rows, space), inner_width)
    height = 2 * _MARGIN + _HEAD_HEIGHT + rows_height + _MARGIN + key.height
    sheet = Image.new("RGB", (inner_width + 2 * _MARGIN, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for left, head in zip(lefts, heads, strict=True):
        text = _shortened(head, _HEAD_SIZE, width)
        draw.text((left, _MARGIN), text, _INK, _font(_HEAD_SIZE))
    top = _MARGIN + _HEAD_HEIGHT
    for index, row in enumerate(panels):
        if titles is not None:
            text = _shortened(titles[index], _TEXT_SIZE, inner_width)
            draw.text((_MARGIN, top), text, _FAINT, _font(_TEXT_SIZE))
        top += title_height
        for left, panel in zip(lefts, row, strict=True):
            sheet.paste(panel, (left, top))
        top += row[0].height + _ROW_GAP
    sheet.paste(key, (_MARGIN, height - _MARGIN - key.height))
    return sheet


def _panels(row: Row, space: LabelSpace, width: int) -> list[Image.Image]:
    """Draw the panels of a row at one size."""
    image_HWC, label_HW, preds = row
    size = (width, max(1, round(width * image_HWC.shape[0] / image_HWC.shape[1])))
    photo = Image.fromarray(image_HWC).resize(size, Image.Resampling.LANCZOS)
    maps = [*([] if label_HW is None else [label_HW]), *preds.values()]
    painted = [Image.fromarray(colourise(ids_HW, space)) for ids_HW in maps]
    return [photo, *(map_.resize(size, Image.Resampling.NEAREST) for map_ in painted)]


def _legend_entries(rows: Sequence[Row], space: LabelSpace) -> list[tuple[str, Colour]]:
    """Return the classes that rows show, in their order, with "ignored" last."""
    maps = [m for _, label_HW, preds in rows for m in (label_HW, *preds.values()) if m is not None]
    return entries_of(maps, space)


def entries_of(maps: Sequence[Label_HW], space: LabelSpace) -> list[tuple[str, Colour]]:
    """Return the classes that maps show, in the space's order, with "ignored" last."""
    seen = {i for ids_HW in maps for i in _ids(ids_HW)}
    named = list(zip(space.classes, space.colours, strict=True))
    entries = [named[i] for i in sorted(seen - {IGNORE})]
    return [*entries, ("ignored", (0, 0, 0))] if IGNORE in seen else entries


def legend(
    entries: Sequence[tuple[str, Colour]], width: int, text_size: int = _TEXT_SIZE
) -> Image.Image:
    """Draw colour samples with names, in as many even columns as fit, below a thin rule."""
    swatch, line_height, gap = (
        round(part * text_size / _TEXT_SIZE) for part in (_SWATCH, _LEGEND_HEIGHT, _GAP)
    )
    text_left = swatch + swatch // 2
    widest = max((round(_font(text_size).getlength(name)) for name, _ in entries), default=0)
    num_columns = max(1, min(len(entries), width // (text_left + widest + gap)))
    num_lines = -(-len(entries) // num_columns)
    num_columns = max(1, -(-len(entries) // max(1, num_lines)))  # fill lines as evenly as possible
    drawn = Image.new("RGB", (width, gap + num_lines * line_height), BACKGROUND)
    draw = ImageDraw.Draw(drawn)
    draw.line((0, 0, width, 0), _RULE)
    for index, (name, colour) in enumerate(entries):
        line, column = divmod(index, num_columns)
        left, middle = column * width // num_columns, gap + (2 * line + 1) * line_height // 2
        box = (left, middle - swatch // 2, left + swatch - 1, middle + swatch // 2 - 1)
        draw.rounded_rectangle(box, radius=3, fill=colour)
        text = _shortened(name, text_size, width // num_columns - text_left)
        draw.text((left + text_left, middle), text, _INK, _font(text_size), anchor="lm")
    return drawn


def _shortened(text: str, size: int, width: int) -> str:
    """Shorten a text with an ellipsis so that it does not run into its neighbour."""
    if _font(size).getlength(text) <= width:
        return text
    while text and _font(size).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
