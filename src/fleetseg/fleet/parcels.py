"""Files as one message: names, sizes and digests in a header, and their concatenated bytes.

Unpacking trusts nothing: names that are not plain file names, sizes that do not add up and bytes
with a wrong digest are refused before anything is written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetseg.errors import UpdateRejected

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_FILES = 100

Files = Mapping[str, bytes]


def pack(folder: Path, names: Sequence[str]) -> tuple[list[list[Any]], bytes]:
    """Read files of a folder; returns [name, size, SHA-256] of each, and their bytes.

    Raises:
        OSError: a file cannot be read.
    """
    contents = [(name, (folder / name).read_bytes()) for name in names]
    listed = [[name, len(data), hashlib.sha256(data).hexdigest()] for name, data in contents]
    return listed, b"".join(data for _, data in contents)


def unpack(listed: Any, payload: bytes) -> Files:
    """Return the files of a message by name; each has the digest stated in the header.

    Raises:
        UpdateRejected: the list is not one of files, or bytes do not match ("digest").
    """
    if not isinstance(listed, list) or not 0 < len(listed) <= _MAX_FILES:
        raise UpdateRejected("malformed", "not a list of files")
    files: dict[str, bytes] = {}
    start = 0
    for entry in listed:
        name, size, digest = _entry(entry)
        data = payload[start : start + size]
        start += size
        if name in files:
            raise UpdateRejected("malformed", "a file appears twice", got=name)
        if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
            raise UpdateRejected("digest", f"{name} is not the file that was announced")
        files[name] = data
    if start != len(payload):
        raise UpdateRejected("malformed", "bytes that belong to no file")
    return files


def _entry(entry: Any) -> tuple[str, int, str]:
    if isinstance(entry, list) and len(entry) == 3:
        name, size, digest = entry
        if (
            isinstance(name, str)
            and _NAME.fullmatch(name)
            and type(size) is int
            and size >= 0
            and isinstance(digest, str)
            and _DIGEST.fullmatch(digest)
        ):
            return name, size, digest
    raise UpdateRejected("malformed", "a file without a plain name, a size and a digest")
