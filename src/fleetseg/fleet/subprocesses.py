"""Child processes that end with their parent, even if that is killed with -9.

`python -m fleetseg.fleet.subprocesses PARENT_PID COMMAND ...` asks the kernel to signal it when the
parent dies, and then becomes the command. Otherwise a killed server would leave behind an engine
that holds its port.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetseg.fleet.threads import start_thread

_PR_SET_PDEATHSIG = 1
MAX_LOG_BYTES = 16 << 20
KEPT_LOGS = 4


def start_child(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a command whose output is appended to `log` and that dies with this process.

    The child has its own session, so that Ctrl-C in a terminal reaches only the parent. Must be
    called from a thread that lives as long as the child should.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    parent_watch = [sys.executable, "-m", "fleetseg.fleet.subprocesses", str(os.getpid())]
    with open(log, "ab") as output:
        return subprocess.Popen(  # noqa: S603
            [*parent_watch, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            cwd=cwd,
            start_new_session=True,
        )


def rotate_log(path: Path, max_bytes: int = MAX_LOG_BYTES, kept: int = KEPT_LOGS) -> bool:
    """Rotate a child's log once it is too large; older ones are kept as `.1`, `.2` ...

    The log is copied and truncated, as its writers have it open for appending. What is written
    between the two is lost; on a full disk, the copy is lost.
    """
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except OSError:
        return False
    older = [path.with_name(f"{path.name}.{k}") for k in range(1, kept + 1)]
    with contextlib.suppress(OSError):
        older[-1].unlink(missing_ok=True)
        for newer, place in zip(older[-2::-1], older[:0:-1], strict=True):
            if newer.exists():
                newer.replace(place)
    with open(path, "rb+") as log:
        try:
            with open(older[0], "wb") as copy:
                shutil.copyfileobj(log, copy)
        except OSError:
            older[0].unlink(missing_ok=True)
        log.truncate(0)
    return True


def stop(process: subprocess.Popen[Any], patience_s: float) -> None:
    """End a child and all its descendants: ask, wait, then kill what is left."""
    below = descendants(process.pid)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=patience_s)
    for pid in (process.pid, *below):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children, their children, and so on."""
    found: list[int] = []
    todo = [pid]
    while todo:
        parent = todo.pop()
        with contextlib.suppress(OSError, ValueError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = [int(word) for word in (task / "children").read_text().split()]
                found += children
                todo += children
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def kill_descendants(pid: int, word: str) -> int:
    """Kill a process's descendants that have `word` in their command line; returns how many."""
    ended = 0
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
            if word in words:
                os.kill(child, signal.SIGKILL)
                ended += 1
    return ended


def kill_orphans(module: str, folder: Path) -> int:
    """Kill left-over processes that run `module` for `folder`; returns how many.

    A child that was starting when its parent was killed may not have been tied to it yet.
    """
    ended = 0
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            started_for_it = any(w.startswith(module) for w in words) and str(folder) in words
            if started_for_it and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
                ended += 1
    return ended


def end_with_parent(poll_s: float = 0.3) -> None:
    """End this process soon after its parent; for processes that we do not start ourselves.

    (The kernel's signal does not help there: it comes when the *thread* that started us ends.)
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(poll_s)
        os._exit(1)

    start_thread(watch, "fleetseg-parent-watch")


def main(arguments: Sequence[str]) -> None:
    """Tie this process to its parent and become the command."""
    parent, *command = arguments
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent died before this process could watch it
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
