"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

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
