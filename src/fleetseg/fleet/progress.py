"""A trainer's progress, in a page of memory shared with the processes that monitor it.

A heartbeat from another thread or process says nothing about the work: a trainer that was stopped,
or hangs, looks as busy as one that trains. So the work counts its own steps, including each sample
that it reads, in a memory-mapped file: a step costs no system call, and readers of the file see it
at once.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_PAGE = struct.Struct("<QQd24s")  # process, steps, patience in seconds, phase
PAGE_NAME = "progress"  # next to the trainer's socket


@dataclass(frozen=True)
class Progress:
    """The last state written; two different states mean progress."""

    process: int
    steps: int
    patience_s: float  # how long this phase may go without a step; infinite = unknown
    phase: str  # what the trainer is doing: idle, hello, or a task

    def __str__(self) -> str:
        """Return the form sent with heartbeats, such as "train 1234 (4711)"."""
        return f"{self.phase} {self.steps} ({self.process})"


class ProgressPage:
    """The trainer's side; without a path, it is not visible to others. Any thread may count."""

    def __init__(self, path: Path | None = None) -> None:
        self._steps, self._patience_s, self._phase = 0, math.inf, b"starting"
        if path is None:
            self._map = mmap.mmap(-1, _PAGE.size)
        else:
            new = path.with_name(f"{path.name}.{os.getpid()}")
            new.write_bytes(bytes(_PAGE.size))  # written to reserve the disk space
            with open(new, "r+b") as file:
                self._map = mmap.mmap(file.fileno(), _PAGE.size)
            self._write()
            new.replace(path)
        self._write()

    def begin(self, phase: str, patience_s: float) -> None:
        """Start a phase, which also counts as a step."""
        self._phase, self._patience_s = phase.encode()[:24], patience_s
        self.step()

    def step(self) -> None:
        """Count one step; of two concurrent steps one may be lost, which still shows progress."""
        self._steps += 1
        self._write()

    def _write(self) -> None:
        page = (os.getpid(), self._steps, self._patience_s, self._phase)
        _PAGE.pack_into(self._map, 0, *page)


def read_progress(path: Path) -> Progress | None:
    """Read a trainer's page; None if there is none."""
    with contextlib.suppress(OSError, struct.error):
        process, steps, patience_s, phase = _PAGE.unpack(path.read_bytes())
        name = phase.rstrip(b"\0").decode("ascii", "replace")
        return Progress(process, steps, patience_s, name if name.isprintable() else "?")
    return None
