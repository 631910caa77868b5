"""A list of messages on disk, one JSON line each: what left a vehicle, what reached the server.

Each line has the kind, the names of the fields, the bytes and the SHA-256 of the message, so that
an owner can see what was sent, and both lists can be compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetseg.fleet.sockets import header_text


class MessageLog:
    """Appends to one file; every line is on disk before the message goes out."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path

    def append(
        self,
        kind: str,
        who: str,
        header: Mapping[str, Any],
        payload: bytes,
        *,
        text: bytes | None = None,
    ) -> None:
        """Write down one message to or from `who`; `text` is its header as it came, if it came.

        Raises:
            OSError: the disk is full; the message must then not be sent.
        """
        text = header_text(header) if text is None else text
        line = {
            "time": round(time.time(), 3),
            "kind": kind,
            "vehicle": who,
            "fields": sorted(header),
            "bytes": len(payload) + len(text),
            "sha256": message_digest(text, payload),
        }
        with open(self.path, "ab+") as file:
            # What a full disk cut off must not swallow this line.
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")
            file.write(json.dumps(line).encode() + b"\n")


def read_message_log(path: Path) -> list[dict[str, Any]]:
    """Read all whole lines."""
    whole = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):
            whole.append(json.loads(line))
    return whole


def header_bytes(header: Mapping[str, Any]) -> int:
    """Bytes of a header as it is sent."""
    return len(header_text(header))


def message_digest(header: Mapping[str, Any] | bytes, payload: bytes) -> str:
    """SHA-256 over header and payload; a header that came is taken as it came."""
    hasher = hashlib.sha256(header if isinstance(header, bytes) else header_text(header))
    hasher.update(payload)
    return hasher.hexdigest()
