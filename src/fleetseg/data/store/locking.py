"""Who has a file of a store open.

A user holds a shared lock; whoever wants to remove the file asks for an exclusive one. Where a file
system knows no locks, users go on without, and nothing counts as free.
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
    """Say that a file is in use, as long as it (or a map of it) is open; False = it is leaving."""
    try:
        try_lock(file, shared=True)  # without locks, users go on
    except BlockingIOError:
        return False
    return True


@contextmanager
def nobody_uses(paths: Iterable[Path]) -> Iterator[bool]:
    """Keep new users off some files, those that are there, and say whether there is none now.

    Raises:
        OSError: a file may not be written, or the file system knows no locks.
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
