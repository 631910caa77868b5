"""Locks of the operating system on open files: they end with the process that holds them.

The kernel takes a lock back when its holder dies, even by kill -9, so a lock file that lies about
means nothing by itself. A lock belongs to the open file, which a memory map of it shares; programs
that are started meanwhile do not inherit it.
"""

from __future__ import annotations

import errno
import sys
from typing import IO, Any

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def try_lock(file: int | IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file, now or not at all; False where the file system knows no locks.

    Any number of processes may hold a shared lock, or one an exclusive lock.

    Raises:
        BlockingIOError: another open file holds a lock that does not go with this one.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            if shared:
                return False
            handle = file if isinstance(file, int) else file.fileno()
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise BlockingIOError(error.errno, "held by another process") from None
        return False
    return True
