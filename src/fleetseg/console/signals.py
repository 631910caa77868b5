"""Ctrl-C and SIGTERM: the first ends a run cleanly, the second ends it at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fleetseg.console import INTERRUPTED, stderr_console


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block, SIGTERM acts like Ctrl-C, and a second signal of either exits at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may handle signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    asked = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            _leave_at_once()
        asked = True
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_at_once() -> None:
    for child in multiprocessing.active_children():
        child.kill()
    stderr_console().show_cursor(True)  # a live table hides it
    os._exit(INTERRUPTED)
