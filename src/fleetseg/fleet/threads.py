"""Threads whose death is noticed: what only waits for one that has died would wait for ever."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable

from fleetseg.errors import EngineError, FleetSegError


def end_process(error: FleetSegError) -> None:
    """End this process with the reason, whatever its other threads wait for."""
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)


def start_thread(
    work: Callable[[], None], name: str, died: Callable[[FleetSegError], None] = end_process
) -> threading.Thread:
    """Start a daemon thread; `died` is called in it with what it raised, should it raise.

    By default the process ends by it: a supervisor starts it again, and nobody would start what
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
