"""Starts worker processes: quickly, without the caller's script, with clear errors.

On Linux, workers that train on a CPU are forked from a process that has imported everything and
done nothing else (`forkserver`): eight of them do not import torch eight times, at seconds each. On
a GPU, which does not survive a fork, and if that process cannot be started, each worker is a new
interpreter (`spawn`).
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from fleetseg.errors import EngineError, FleetSegError
from fleetseg.files import explained

IMPORT_CURE = (
    "A network or data set of your own must be importable: put its class into a module, "
    "not into the script that runs; otherwise use --engine inprocess"
)
_PRELOADED = ["fleetseg.engines.preload"]


def start(
    name: str, target: Callable[[Any, Connection], None], job: object, *, on_cpu: bool
) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """Start a process that runs `target(job, pipe)`; returns it and our end of the pipe.

    Raises:
        EngineError: it cannot be started, or the job cannot be sent.
        CheckpointError: this process has too many open files.
    """
    with startable():
        context = _context(on_cpu)
        ours, theirs = context.Pipe()
        process: multiprocessing.process.BaseProcess = context.Process(
            target=_run, args=(target, job, theirs, dict(os.environ)), name=name, daemon=True
        )
        try:
            with _quiet_start():
                process.start()
        finally:
            theirs.close()
    return process, ours


def unsendable(objects: Iterable[object]) -> str:
    """Return a text about a class that another process could not import; empty if there is none."""
    for each in objects:
        kind = type(each)
        if kind.__module__ == "__main__":
            return f"class {kind.__qualname__} is defined in the script that runs"
        if "<locals>" in kind.__qualname__:
            return f"class {kind.__qualname__} is defined inside a function"
    return ""


@contextmanager
def startable() -> Iterator[None]:
    """Turn errors in the block into ones that say why a worker cannot be started."""
    try:
        yield
    except (OSError, EOFError) as error:  # EOF: the fork server failed
        raise _unstarted(error) from None
    except Exception as error:  # whatever a user's object raises when it is sent
        raise EngineError(f"a worker could not be started ({error})", cure=IMPORT_CURE) from None


def _context(on_cpu: bool) -> Any:
    if sys.platform != "linux" or not on_cpu:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    try:
        with _quiet_start():
            forkserver.ensure_running()
    except OSError:  # no place for its socket: TMPDIR is too long for one, or missing
        return multiprocessing.get_context("spawn")
    return context


def _run(
    target: Callable[[Any, Connection], None],
    job: object,
    pipe: Connection,
    environment: dict[str, str],
) -> None:
    """Run with the current environment: the fork server's may be older."""
    os.environ.clear()
    os.environ.update(environment)
    target(job, pipe)


def _unstarted(error: OSError | EOFError) -> FleetSegError:
    if isinstance(error, OSError) and (known := explained(error)):
        return known
    return EngineError(
        f"a worker could not be started ({getattr(error, 'strerror', None) or error})",
        cure="Use fewer --workers, or raise the limit of processes (ulimit -u) or of memory",
    )


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep processes started in the block from importing the caller's script, and from Ctrl-C.

    A worker needs nothing from the script, and a script without `if __name__ == "__main__"` would
    run again in each worker. A new process inherits the blocked signal while it starts.
    """
    main = sys.modules["__main__"]
    hidden = {n: getattr(main, n, None) for n in ("__spec__", "__file__")}
    resource_tracker.ensure_running()  # it would unblock the signal when it starts
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        main.__spec__ = None
        if hidden["__file__"] is not None:
            del main.__file__
        yield
    finally:
        main.__spec__ = hidden["__spec__"]
        if hidden["__file__"] is not None:
            main.__file__ = hidden["__file__"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
