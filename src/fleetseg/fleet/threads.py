"""Threads whose death is noticed: whatever waits for a dead thread would wait for ever."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable

from fleetseg.errors import EngineError, FleetSegError


def end_process(error: FleetSegError) -> None:
    """Print the error and end this process, whatever its other threads wait for."""
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def start_thread(
    work: Callable[[], None], name: str, died: Callable[[FleetSegError], None] = end_process
) -> threading.Thread:
    """Start a daemon thread; if it raises, `died` is called in it with the error.

    By default this ends the process: a supervisor restarts a process that ended, but not one that
    hangs.
    """

    def run() -> None:
        try:
            work()
        except FleetSegError as error:
            died(error)
        except BaseException as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            death = EngineError(f"the thread '{name}' has died ({text})")
            death.__cause__ = error
            died(death)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
