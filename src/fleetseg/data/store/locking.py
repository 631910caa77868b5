"""Who has a file open: a lock of the operating system, which ends with the process that holds it.

A user holds a shared lock; whoever wants to remove the file asks for an exclusive one. Where a file
system knows no locks, users go on without, and nothing counts as free.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any


def share(file: IO[Any]) -> bool:
    """Say that a file is in use, for as long as it (or a map of it) is open; False = it is leaving.

    The lock belongs to the open file, which a memory map of it shares.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
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
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
