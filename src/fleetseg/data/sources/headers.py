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
    """How the camera was held, in words ("" = upright); 16 bits per channel, or a single one."""

    turn: str = ""
    deep: bool = False
    one_bit: bool = False


def read_header(path: str) -> Header:
    """Read the header of an image; a damaged file or a non-image yields an empty header."""
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith("I") or is_deep_colour(image)
            # Looking for the EXIF data of a PNG decodes its pixels, so avoid it if possible.
            exif = image.getexif() if image.format != "PNG" or _may_be_turned(path) else {}
            turn = _TURNS.get(exif.get(_ORIENTATION, 1), "")
            return Header(turn, deep, image.mode == "1")
    except Exception:  # PIL raises whatever it trips over; reading the pixels will tell
        return Header()


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Return whether an open file has 16 bits per colour, of which PIL decodes the high byte."""
    args = image.tile[0][3] if image.tile else ""
    raw_mode = args if isinstance(args, str) else str(args[0]) if args else ""
    return ";16" in raw_mode and not image.mode.startswith("I")


def _may_be_turned(path: str) -> bool:
    return bool(chunk_kinds(path) & {b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
