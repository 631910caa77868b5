"""Read PNG files chunk by chunk: list the chunks, and drop text chunks.

Texts and colour profiles do not affect the pixels, and a library may reject a file because of
their size.
"""

from __future__ import annotations

import io
import os
import struct
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
_EXIF = b"Raw profile type exif\0"  # how ImageMagick stores EXIF data such as the orientation
_SMALL_EXIF = 1 << 16  # bytes


def chunk_kinds(path: str) -> set[bytes]:
    """Return the kinds of all chunks without reading their contents; empty if it is not a PNG.

    Raises:
        OSError: the file cannot be read.
    """
    kinds: set[bytes] = set()
    with open(path, "rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return kinds
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            kinds.add(kind)
            file.seek(length + 4, os.SEEK_CUR)  # past the content and its checksum
    return kinds


def without_texts(path: str) -> BinaryIO | None:
    """Return the file without its text chunks; None if it has none or is not a PNG.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    if not data.startswith(_SIGNATURE):
        return None
    kept, at = [_SIGNATURE], len(_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        end = at + 12 + length  # length, kind and checksum around the content
        content = data[at + 8 : end - 4]
        if kind not in _TEXTS or (content.startswith(_EXIF) and length < _SMALL_EXIF):
            kept.append(data[at:end])
        at = end
    small = b"".join(kept)
    return io.BytesIO(small) if len(small) < len(data) else None
