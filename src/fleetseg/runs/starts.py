"""When a run was resumed: `resumed.jsonl` in its folder, one line each time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fleetseg.files import write_atomic

FILE = "resumed.jsonl"


@dataclass(frozen=True)
class Resume:
    """One resumption of a run."""

    after_round: int  # the last round committed before it; 0 = none
    at: str  # ISO 8601, UTC


def record_resume(folder: Path, after_round: int) -> None:
    """Record that a run is resumed after a round."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"after_round": after_round, "at": at})
    path = folder / FILE
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    write_atomic(path, f"{before}{line}\n")


def read_resumes(folder: Path) -> tuple[Resume, ...]:
    """Read when a run was resumed; empty if it never was, or an earlier version made the folder.

    Damaged lines are left out.
    """
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        try:
            fields = json.loads(line)
            found.append(Resume(int(fields["after_round"]), str(fields["at"])))
        except (ValueError, KeyError, TypeError):
            continue
    return tuple(found)
