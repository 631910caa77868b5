"""Cache folders that are being written or removed, and the removal of abandoned ones."""

from __future__ import annotations

import os
import re
import time
import uuid
from contextlib import suppress
from pathlib import Path

from fleetseg.data.store.locking import nobody_uses
from fleetseg.data.store.store import IMAGES, INDEX, LABELS

TEMPORARY = re.compile(r"\.(index|digests)\.json\.\d+\.tmp")  # written by `write_atomic`
_PREFIX = ".building-"
_NAME = re.compile(re.escape(_PREFIX) + r"[0-9a-f]{32}")
_ABANDONED_S = 60.0  # unlocked, and not written to for this long
_UNLOCKED_S = 3600.0  # the same on a file system without locks


def new_unfinished(cache_dir: Path) -> Path:
    """Return a new path for an unfinished folder."""
    return cache_dir / f"{_PREFIX}{uuid.uuid4().hex}"


def is_unfinished(path: Path) -> bool:
    """Return whether a path is one made by `new_unfinished`."""
    return _NAME.fullmatch(path.name) is not None


def is_abandoned(half: Path) -> bool:
    """Return whether no process is working on an unfinished store."""
    try:
        newest = max(path.stat().st_mtime for path in (half, *half.iterdir()))
    except OSError:  # just removed
        return False
    age_s = time.time() - newest
    try:
        with nobody_uses((half / IMAGES, half / LABELS)) as free:
            return free and age_s > _ABANDONED_S
    except OSError:
        return age_s > _UNLOCKED_S


def sweep(cache_dir: Path) -> None:
    """Remove unfinished stores whose builders were killed."""
    for half in cache_dir.glob(f"{_PREFIX}*"):
        if is_unfinished(half) and is_abandoned(half):
            with suppress(OSError):
                remove(half)


def own_files(folder: Path) -> list[Path] | None:
    """Return the files in a cache folder; None if it contains anything not made by fleetseg."""
    files = []
    with os.scandir(folder) as found:
        for file in found:
            known = file.name in (IMAGES, LABELS, INDEX) or TEMPORARY.fullmatch(file.name)
            if not known or not file.is_file(follow_symlinks=False):
                return None
            files.append(Path(file.path))
    return files


def remove(folder: Path) -> None:
    """Remove a cache folder, file by file; leave it alone if it contains anything else.

    Raises:
        OSError: it cannot be removed.
    """
    files = own_files(folder)
    if files is not None:
        for file in files:
            file.unlink(missing_ok=True)
        folder.rmdir()
