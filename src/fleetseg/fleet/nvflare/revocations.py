"""Who may no longer take part: a list that lines are added to, and none is taken from.

A whole file written again by somebody who read it a while ago would bring a revoked vehicle back;
a line that is added cannot. The last line about a vehicle counts.
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
    """Return who is revoked; `before` is who was when fleets had no such list.

    Raises:
        ConfigError: a whole line cannot be read; nobody is let in by a damaged list.
    """
    path = folder / _FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return tuple(sorted(set(before)))
    revoked = set()
    # What a crash cut off was never said to be done, and the next line takes its place.
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            fields = json.loads(line)
            vehicle, is_revoked = str(fields["vehicle"]), bool(fields["revoked"])
        except (ValueError, KeyError, TypeError) as error:
            what = f"line {number} cannot be read ({type(error).__name__})"
            cure = "Mend the line, or put the file back from a backup"
            raise ConfigError(what, where=path, cure=cure) from None
        if is_revoked:
            revoked.add(vehicle)
        else:
            revoked.discard(vehicle)
    return tuple(sorted(revoked))


def note(folder: Path, vehicles: Iterable[str], *, revoked: bool) -> None:
    """Add what has been decided about vehicles; on disk when this returns."""
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
    """Say whether there is a list; fleets of earlier versions have none."""
    return (folder / _FILE).exists()


def _cut_torn_line(handle: int) -> None:
    size = os.fstat(handle).st_size
    data = os.pread(handle, 1 << 16, max(0, size - (1 << 16)))
    if data and not data.endswith(b"\n"):
        os.ftruncate(handle, size - len(data) + data.rfind(b"\n") + 1)
