"""Walk the chain of a list of messages: is each line the one that the next was written behind?

What the chain shows: that no line was changed, taken out, put in or moved since the line after it
was written. What it cannot: lines taken off the end, or a list written anew from some line on by
who owns the machine. Against that, note the digest of the last line elsewhere, or compare with the
list of the other side.
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
    """What the walk along one list found."""

    path: Path
    lines: int  # that are messages
    unchained: int  # of those, at the beginning: written by a version without a chain
    cut: int  # lines that a full disk or a crash cut off
    digest: str  # of the last line
    broken: str = ""  # where the chain breaks, and how; empty = it holds


def lists_in(path: Path) -> tuple[Path, ...]:
    """Find the lists of a vehicle's kit or a run folder; or take a list itself.

    Raises:
        ConfigError: there is none.
    """
    found = (path,) if path.is_file() else tuple(path / p for p in _PLACES if (path / p).is_file())
    if not found:
        raise ConfigError(
            "no list of messages",
            where=path,
            expected="egress.jsonl, ingress.jsonl, a vehicle's kit or a run folder",
        )
    return found


def verify(path: Path) -> Audit:
    """Walk along a list, through the full ones before it, up to where its chain breaks."""
    chained = unchained = cut = 0
    previous: bytes | None = None
    broken = ""
    for where, line in _lines(path):
        linked = _link(line)
        if linked is None:
            cut += 1  # cut off or spoilt: which of the two, the next link says
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
        return "" if linked == FIRST else "what came before it is gone"
    if linked == line_digest(previous):
        return ""
    return "the line before it is not the one it was written behind"


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    for part in parts_of(path):
        with open(part, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield f"{part}:{number}", line.rstrip(b"\n")


def _link(line: bytes) -> str | None:
    """Return what a line says of the one before it; "" if nothing, None if it is no line."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return str(fields.get("previous", "")) if isinstance(fields, dict) else None
