"""A vehicle's supervisor: keeps two other processes running, and does nothing else.

    python -m fleetseg.fleet.vehicle.supervisor PLAN.json

PLAN names a folder, the commands of the engine and the trainer, and texts in the engine's log that
should be explained to a person. It imports nothing heavy: an idle vehicle bears the cost of the
engine, and hardly any for this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from fleetseg.fleet.awake import AwakeClock
from fleetseg.fleet.progress import Progress, read_progress
from fleetseg.fleet.subprocesses import kill_orphans, rotate_log, start_child, stop
from fleetseg.fleet.watchdog import Watchdog

_POLL_S = 0.25
_CALM_S = 60.0  # a child that ran this long is restarted at once
_PATIENCE_S = 5.0
_MAX_PAUSE_S = 10.0
_START_S = 1800.0  # patience with a child that has not reported any progress yet
_MOST_READ, _MOST_COPIED = 1 << 20, 1 << 16  # bytes of a log read at once


class Child:
    """A process that is restarted, after a pause, when it dies or makes no progress.

    `page` is the file in which it counts its steps, if any.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        environment: dict[str, str],
        page: Path | None = None,
    ) -> None:
        self.name, self.log, self._page = name, log, page
        self._progress: Progress | None = None
        self._moved_s = 0.0
        self._command, self._environment = command, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._began_s = self._next_s = 0.0
        self._pause_s = 0.5

    def ensure_running(self, now_s: float) -> str:
        """Start the process if it is not running; returns a message if it has died or hangs."""
        if self._process is None:
            if now_s >= self._next_s:
                self._begin(now_s)
            return ""
        code = self._process.poll()
        how = self._hangs(now_s) if code is None else _how_it_ended(code)
        if not how:
            return ""
        stop(self._process, patience_s=0)
        self._process = None
        calm = now_s - self._began_s > _CALM_S
        self._pause_s = 0.5 if calm else min(2 * self._pause_s, _MAX_PAUSE_S)
        self._next_s = now_s + self._pause_s * _spread()
        return f"{self.name} {how}; restarting it in {self._pause_s:.0f} s (log: {self.log})"

    def _begin(self, now_s: float) -> None:
        if self._page is not None:
            self._page.unlink(missing_ok=True)  # left by the previous process
        self._progress, self._began_s, self._moved_s = None, now_s, now_s
        self._process = start_child(self._command, log=self.log, environment=self._environment)

    def _hangs(self, now_s: float) -> str:
        """Return a message if it has gone without progress for longer than it said it may."""
        progress = read_progress(self._page) if self._page is not None else None
        if progress != self._progress:
            self._progress, self._moved_s = progress, now_s
        patience_s = progress.patience_s if progress else _START_S
        if self._page is None or now_s - self._moved_s <= patience_s:
            return ""
        return f"has made no progress for {now_s - self._moved_s:.0f} s ({progress or 'starting'})"

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            stop(self._process, patience_s=_PATIENCE_S)


def _how_it_ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _spread() -> float:
    """Return a random factor for pauses: vehicles whose server has gone must not return at once."""
    return 1 + secrets.randbelow(500) / 1000


class Follower:
    """Follows a log and explains known messages in it, each at most once a minute."""

    def __init__(self, path: Path, texts: dict[str, str]) -> None:
        self._path, self._texts = path, texts
        self._at = path.stat().st_size if path.exists() else 0
        self._explained_s: dict[str, float] = {}

    def new(self, now_s: float) -> list[str]:
        """Return explanations of newly appended messages, for a person."""
        found = []
        for line in self._lines():
            for text, words in self._texts.items():
                if text in line and now_s - self._explained_s.get(words, -1e9) > _CALM_S:
                    self._explained_s[words] = now_s
                    found.append(words)
        return found

    def _lines(self) -> list[str]:
        try:
            size = self._path.stat().st_size
            if size < self._at:
                self._at = 0
            if size == self._at:
                return []
            with open(self._path, "rb") as file:
                file.seek(self._at)
                data = file.read(_MOST_READ)
        except OSError:
            return []
        whole = _whole_lines(data, _MOST_READ)
        self._at += len(whole)
        return whole.decode(errors="replace").splitlines()


def supervise(plan: dict[str, Any]) -> int:
    """Run until a signal arrives; returns the exit code."""
    folder = Path(plan["folder"])
    with open(folder / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"error: this kit is in use by another process ({folder})")
            return 1
        except OSError:
            log(f"{folder}: this file system has no locks; make sure that only one process uses it")
        return _supervise(plan, folder)


def _supervise(plan: dict[str, Any], folder: Path) -> int:
    kill_orphans("nvflare.", folder.parent)
    children = [
        Child(
            name,
            part["command"],
            Path(part["log"]),
            part["environment"],
            Path(part["progress"]) if "progress" in part else None,
        )
        for name, part in plan["children"].items()
    ]
    followers = [Follower(Path(path), dict(texts)) for path, texts in plan["follow"].items()]
    trainer = Path(plan["trainer_log"])
    copied = trainer.stat().st_size if trainer.exists() else 0
    stopping: list[int] = []
    watchdog = Watchdog()
    clock = AwakeClock()  # while this process was stopped, the trainer may have been, too

    def request_stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, request_stop)
    try:
        while not stopping and os.getppid() == plan.get("parent", os.getppid()):
            now_s = clock()
            for child in children:
                if notice := child.ensure_running(now_s):
                    log(notice)
            for follower in followers:
                for notice in follower.new(now_s):
                    log(notice)
            copied = _copy_log(trainer, copied)
            for child in children:
                rotate_log(child.log)  # after its new lines have been read
            watchdog.alive()
            time.sleep(_POLL_S)
    finally:
        for child in children:
            child.stop()
        with contextlib.suppress(OSError):
            shutil.rmtree(plan["sockets"])
    log("stopped")
    return 0


def _copy_log(path: Path, at: int) -> int:
    """Copy new lines of the trainer's log to this process's output."""
    try:
        with open(path, "rb") as file:
            at = at if at <= os.fstat(file.fileno()).st_size else 0  # it was rotated
            file.seek(at)
            data = file.read(_MOST_COPIED)
    except OSError:
        return at
    whole = _whole_lines(data, _MOST_COPIED)
    with contextlib.suppress(OSError):
        sys.stdout.write(whole.decode(errors="replace"))
        sys.stdout.flush()
    return at + len(whole)


def _whole_lines(data: bytes, most: int) -> bytes:
    """Return the complete lines; everything if one line is longer than what was read."""
    whole, end, _ = data.rpartition(b"\n")
    return whole + end if end or len(data) < most else data


def log(text: str) -> None:
    """Print a line with the time."""
    with contextlib.suppress(OSError):  # the output may be a file on a full disk
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not if it is closed
            stream.reconfigure(errors="replace")  # an unprintable name must not end this process
    with open(sys.argv[1], encoding="utf-8") as plan_file:
        sys.exit(supervise(json.load(plan_file)))
