"""A log of messages on disk, one JSON line each: what left a vehicle, or reached the server.

Each line has the kind, the names of the fields, the size and the SHA-256 of the message, so that an
owner can see what was sent, and both sides' logs can be compared. Each also has the SHA-256 of the
line before it (`previous`), across files, so that a later change, removal or insertion breaks the
chain (see `audit`). A line is on the disk, by fsync, when `append` returns.

A full log is renamed to NAME-000001.jsonl and so on; none is ever removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetseg.fleet.sockets import header_text

MAX_BYTES = 1 << 26  # of one file; a line takes about 300
FIRST = "0" * 64  # `previous` of the very first line
_MOST_FIELDS, _MOST_CHARACTERS = 50, 100  # limits on what is logged of an untrusted header
_BLOCK = 1 << 16


class MessageLog:
    """Appends to one log, which other processes may append to as well."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._max_bytes = path, max_bytes

    def append(
        self,
        kind: str,
        who: str,
        header: Mapping[str, Any],
        payload: bytes,
        *,
        text: bytes | None = None,
    ) -> None:
        """Log one message to or from `who`; `text` is its header as received, if it was received.

        Raises:
            OSError: the disk is full; the message must then not be sent.
        """
        text = header_text(header) if text is None else text
        line = {
            "time": round(time.time(), 3),
            "kind": kind,
            "vehicle": who,
            "fields": [name[:_MOST_CHARACTERS] for name in sorted(header)[:_MOST_FIELDS]],
            "bytes": len(payload) + len(text),
            "sha256": message_digest(text, payload),
        }
        with self._alone():
            self._rotate_if_full()
            is_new = not self.path.exists()
            with open(self.path, "ab+") as file:
                last = _last_line(file) or _last_of(parts_of(self.path)[:-1])
                # A line truncated by a full disk must not swallow this one; it is still a link.
                if last and not last.endswith(b"\n"):
                    file.write(b"\n")
                file.write(json.dumps({**line, "previous": line_digest(last)}).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                _sync_folder(self.path.parent)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the log for appending: a trainer and its relay share one."""
        with open(self.path.with_suffix(".lock"), "ab") as lock:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _rotate_if_full(self) -> None:
        if self.path.is_file() and self.path.stat().st_size >= self._max_bytes:
            number = len(parts_of(self.path))  # including this one
            self.path.rename(self.path.with_name(f"{self.path.stem}-{number:06d}.jsonl"))


def parts_of(path: Path) -> list[Path]:
    """Return all files of a log in order; the last is the one that is appended to."""
    return [*sorted(path.parent.glob(f"{path.stem}-[0-9]*.jsonl")), path]


def line_digest(line: bytes) -> str:
    """Return the SHA-256 of a line without its line break; zeros for an empty line."""
    line = line.rstrip(b"\n")
    return hashlib.sha256(line).hexdigest() if line else FIRST


def _last_line(file: Any) -> bytes:
    """Return the last line of a file, complete or truncated; leaves the file at its end."""
    end = at = file.seek(0, os.SEEK_END)
    tail = b""
    while at and b"\n" not in tail[:-1]:
        at = max(0, at - _BLOCK)
        file.seek(at)
        tail = file.read(end - at)
    file.seek(end)
    return tail[tail.rfind(b"\n", 0, len(tail) - 1) + 1 :]


def _last_of(older: list[Path]) -> bytes:
    for path in reversed(older):
        with open(path, "rb") as file:
            if line := _last_line(file):
                return line
    return b""


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that does not support it
            os.fsync(handle)
    finally:
        os.close(handle)


def read_message_log(path: Path) -> list[dict[str, Any]]:
    """Read all complete lines of a log and its rotated parts."""
    whole = []
    for part in parts_of(path):
        for line in part.read_text(encoding="utf-8").splitlines() if part.is_file() else []:
            with contextlib.suppress(ValueError):
                whole.append(json.loads(line))
    return whole


def header_bytes(header: Mapping[str, Any]) -> int:
    """Return the size of a header as sent."""
    return len(header_text(header))


def message_digest(header: Mapping[str, Any] | bytes, payload: bytes) -> str:
    """Return the SHA-256 over header and payload; a received header is used as received."""
    hasher = hashlib.sha256(header if isinstance(header, bytes) else header_text(header))
    hasher.update(payload)
    return hasher.hexdigest()
