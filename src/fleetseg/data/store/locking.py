"""Locks that show whether a process has a file of a store open.

Each process that uses a file holds a shared lock; to remove the file, a process requests an
exclusive lock. On a file system without locks, users proceed without, and no file counts as free.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fleetseg.locks import try_lock


def share(file: IO[Any]) -> bool:
    """Mark a file as in use while it (or a map of it) is open; False = it is being removed."""
    try:
        try_lock(file, shared=True)  # without lock support, proceed
    except BlockingIOError:
        return False
    return True


@contextmanager
def nobody_uses(paths: Iterable[Path]) -> Iterator[bool]:
    """Lock those files that exist against new users, and yield whether no process uses them.

    Raises:
        OSError: a file is not writable, or the file system does not support locks.
    """
    with ExitStack() as stack:
        try:
            for path in paths:
                with suppress(FileNotFoundError):
                    file = stack.enter_context(open(path, "r+b"))
                    if not try_lock(file):
                        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path))
        except BlockingIOError:
            yield False
            return
        yield True
