"""Verify the hash chain of a message log: each line holds the digest of the line before it.

The chain proves that no line was changed, removed, inserted or moved after the next line was
written. It cannot reveal that lines were removed from the end, or that the machine's owner rewrote
the log from some line on. To detect that, record the digest of the last line elsewhere, or compare
with the log of the other side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fleetseg.errors import ConfigError
from fleetseg.fleet.message_log import FIRST, line_digest, parts_of

_PLACES = (
    "egress.jsonl", "ingress.jsonl", "logs/egress.jsonl", "logs/ingress.jsonl",
    "fleetseg/logs/egress.jsonl",
)  # fmt: skip


@dataclass(frozen=True)
class Audit:
    """The result of verifying one log."""

    path: Path
    lines: int  # number of messages
    unchained: int  # messages at the beginning, written by a version without a chain
    cut: int  # lines truncated by a full disk or a crash
    digest: str  # of the last line
    broken: str = ""  # where and how the chain breaks; empty = it holds


def lists_in(path: Path) -> tuple[Path, ...]:
    """Find the message logs of a vehicle's kit or a run folder; `path` may also be a log itself.

    Raises:
        ConfigError: there is none.
    """
    found = (path,) if path.is_file() else tuple(path / p for p in _PLACES if (path / p).is_file())
    if not found:
        raise ConfigError(
            "no message log",
            where=path,
            expected="egress.jsonl, ingress.jsonl, a vehicle's kit or a run folder",
        )
    return found


def verify(path: Path) -> Audit:
    """Verify a log and its rotated parts, from the oldest, up to where the chain breaks."""
    chained = unchained = cut = 0
    previous: bytes | None = None
    broken = ""
    for where, line in _lines(path):
        linked = _link(line)
        if linked is None:
            cut += 1  # truncated or tampered with: the next link tells which
        elif linked:
            broken = _why_broken(linked, previous)
            chained += 1
        elif chained:
            broken = "it has no link to the line before it"
        else:
            unchained += 1
        if broken:
            broken = f"{where}: {broken}"
            break
        previous = line
    return Audit(path, chained + unchained, unchained, cut, line_digest(previous or b""), broken)


def _why_broken(linked: str, previous: bytes | None) -> str:
    if previous is None:
        return "" if linked == FIRST else "the lines before it are gone"
    if linked == line_digest(previous):
        return ""
    return "the line before it is not the one that it was written after"


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    for part in parts_of(path):
        with open(part, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield f"{part}:{number}", line.rstrip(b"\n")


def _link(line: bytes) -> str | None:
    """Return the previous line's digest from a line; "" if it has none, None if unreadable."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return str(fields.get("previous", "")) if isinstance(fields, dict) else None
