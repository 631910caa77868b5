"""Writing files so that a crash leaves the old one or the new one; reading what people wrote."""

from __future__ import annotations

import codecs
import errno
import os
from pathlib import Path

from fleetseg.errors import CheckpointError


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file by way of a temporary one beside it, fsync and one rename.

    Raises:
        CheckpointError: if the disk is full; names the path and the bytes needed.
    """
    content = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(path, len(content)) from None
        raise
    sync_folder(path.parent)


def read_text(path: Path) -> str:
    """Read a text file that a person may have saved: UTF-8, with or without a byte-order mark.

    Raises:
        OSError: it cannot be read.
        ValueError: it is in another encoding; the text says which, where that can be told.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise ValueError("the text is UTF-16 or UTF-32: save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}): save the text as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def disk_full(path: Path, num_bytes: int) -> CheckpointError:
    """Build the error for a disk that has no room for `num_bytes` more."""
    return CheckpointError(
        f"no space left on the disk for {num_bytes:,} bytes",
        where=path,
        cure="Free some space and go on with --resume",
    )


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
