"""The list of revoked vehicles: an append-only file.

Rewriting a whole file from an outdated copy could reinstate a revoked vehicle; appending a line
cannot. The last line about a vehicle counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from fleetseg.errors import ConfigError
from fleetseg.files import sync_folder

_FILE = "revocations.jsonl"


def read_revoked(folder: Path, before: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the revoked vehicles; `before` are those from when fleets had no such list.

    Raises:
        ConfigError: a complete line cannot be read; a damaged list never admits a vehicle.
    """
    path = folder / _FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return tuple(sorted(set(before)))
    revoked = set()
    # A line truncated by a crash was never confirmed, and the next line replaces it.
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            fields = json.loads(line)
            vehicle, is_revoked = str(fields["vehicle"]), bool(fields["revoked"])
        except (ValueError, KeyError, TypeError) as error:
            what = f"line {number} cannot be read ({type(error).__name__})"
            cure = "Fix the line, or restore the file from a backup"
            raise ConfigError(what, where=path, cure=cure) from None
        if is_revoked:
            revoked.add(vehicle)
        else:
            revoked.discard(vehicle)
    return tuple(sorted(revoked))


def note(folder: Path, vehicles: Iterable[str], *, revoked: bool) -> None:
    """Append a decision about vehicles; it is on the disk when this returns."""
    lines = [
        json.dumps({"time": round(time.time(), 3), "vehicle": vehicle, "revoked": revoked})
        for vehicle in vehicles
    ]
    with open(folder / _FILE, "ab+") as file:
        _cut_torn_line(file.fileno())
        file.write("".join(f"{line}\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def has_list(folder: Path) -> bool:
    """Return whether there is a list; fleets made by earlier versions have none."""
    return (folder / _FILE).exists()


def _cut_torn_line(handle: int) -> None:
    size = os.fstat(handle).st_size
    data = os.pread(handle, 1 << 16, max(0, size - (1 << 16)))
    if data and not data.endswith(b"\n"):
        os.ftruncate(handle, size - len(data) + data.rfind(b"\n") + 1)
