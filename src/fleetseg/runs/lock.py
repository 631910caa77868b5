"""Exclusive use of a run folder: one process at a time holds the lock on its lock file."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleetseg.errors import CheckpointError, FolderInUse
from fleetseg.files import explained
from fleetseg.locks import try_lock

LOCK = "run.lock"


@dataclass(frozen=True)
class Ownership:
    """A run folder that belongs to this process alone while `owning` lasts."""

    folder: Path
    note: str = ""  # set where the file system has no locks


@contextmanager
def owning(folder: Path) -> Iterator[Ownership]:
    """Own a run folder within the block; the folder is created if it does not exist.

    Raises:
        CheckpointError: another process owns it (says which one), or it cannot be written.
    """
    made = not folder.exists()
    handle = -1
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, locked = _lock(folder / LOCK)
        except OSError as error:
            raise (explained(error, folder) or _unusable(folder, error)) from None
        yield Ownership(folder, "" if locked else _unlocked(folder))
    finally:
        if handle >= 0:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink()
            os.close(handle)
        if made:
            drop_if_empty(folder)


def _lock(path: Path) -> tuple[int, bool]:
    """Return the open lock file, and whether the file system could lock it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locked = try_lock(handle)
        except BlockingIOError:
            os.close(handle)
            raise _in_use(path) from None
        if not locked or _is_at(handle, path):
            break
        os.close(handle)  # its owner ended and removed the file between our two steps
    facts = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%F %T")}
    with contextlib.suppress(OSError):  # a full disk is reported elsewhere
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(facts).encode())
    return handle, locked


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _in_use(path: Path) -> FolderInUse:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        holder = f"process {facts['pid']} on {facts['host']}, since {facts['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        holder = "another process"
    return FolderInUse(
        "a run is at work in this folder",
        where=path.parent,
        got=holder,
        cure="Wait for it to end, or stop it; or choose another --out",
    )


def _unusable(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"cannot be used as a run folder ({error.strerror})",
        where=folder,
        cure="Choose another --out",
    )


def _unlocked(folder: Path) -> str:
    return (
        f"{folder}: this file system has no locks, so nothing keeps a second run from writing "
        "here too; make sure that there is none"
    )


def new_run_folder(name: str, base: Path = Path("runs")) -> Path:
    """Create a run folder under a new name: the time, the name, and a number if needed.

    Raises:
        CheckpointError: folders cannot be created there.
    """
    stem = f"{time.strftime('%Y-%m-%d_%H%M%S')}_{name}"
    for number in itertools.count(1):
        folder = base / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if base.is_dir():
                continue
            raise _unusable(base, NotADirectoryError(errno.ENOTDIR, "not a folder")) from None
        except OSError as error:
            raise (explained(error, folder) or _unusable(folder, error)) from None
        return folder
    raise AssertionError


def drop_if_empty(folder: Path) -> None:
    """Remove a folder that a run created and left empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()
