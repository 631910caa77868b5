"""Facts from the header of an image file."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageFile

from fleetseg.data.sources.png import chunk_kinds

_ORIENTATION = 0x0112  # EXIF tag: 1 = upright
_TURNS = {
    1: "", 2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored",
    5: "turned by 90 degrees and mirrored", 6: "turned by 90 degrees",
    7: "turned by 90 degrees and mirrored", 8: "turned by 90 degrees",
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What was read: how the camera was held, in words ("" = upright), and how pixels lie there."""

    turn: str = ""
    deep: bool = False
    one_bit: bool = False
    several: bool = False  # pages or frames


def read_header(path: str) -> Header:
    """Read the header of an image; a damaged file or a non-image yields an empty header."""
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith("I") or is_deep_colour(image)
            # Looking for the EXIF data of a PNG decodes its pixels, so avoid it if possible.
            exif = image.getexif() if image.format != "PNG" or _may_be_turned(path) else {}
            turn = _TURNS.get(exif.get(_ORIENTATION, 1), "")
            return Header(turn, deep, image.mode == "1", num_pictures(image) > 1)
    except Exception:  # PIL raises whatever it trips over; reading the pixels will tell
        return Header()


def num_pictures(image: ImageFile.ImageFile) -> int:
    """Count the pages or frames of an opened file."""
    return int(getattr(image, "n_frames", 1))


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Return whether an open file has 16 bits per colour, of which PIL decodes the high byte."""
    args = image.tile[0][3] if image.tile else ""
    raw_mode = args if isinstance(args, str) else str(args[0]) if args else ""
    return ";16" in raw_mode and not image.mode.startswith("I")


def _may_be_turned(path: str) -> bool:
    return bool(chunk_kinds(path) & {b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
