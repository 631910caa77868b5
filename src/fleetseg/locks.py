"""Operating-system locks on open files, released when the holding process ends.

The kernel releases a lock when its holder dies, even by kill -9, so a leftover lock file means
nothing by itself. A lock belongs to the open file description, which a memory map of the file
shares; child processes do not inherit it.
"""

from __future__ import annotations

import errno
import sys
from typing import IO, Any

_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def try_lock(file: int | IO[Any], *, shared: bool = False) -> bool:
    """Lock an open file without waiting; return False where the file system has no locks.

    Any number of processes may hold a shared lock, or one process an exclusive lock.

    Raises:
        BlockingIOError: another open file holds a conflicting lock.
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
