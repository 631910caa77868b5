"""Releases as stored by a fleet and its vehicles: numbered folders, one of which is in use.

    models/0002/   model.safetensors, config.json ..., release.json with the SHA-256 of each
    models/current one line: the number of the release in use ("driven")

The layout is that of a registry (docs/release.md), so that tools for registries can read it. A
release appears as a whole, by one rename; so does a new `current`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleetseg.errors import UpdateRejected
from fleetseg.files import sync_folder, write_atomic
from fleetseg.fleet.parcels import Files

FOLDER = "models"
"""In a fleet's folder, and in `kit/fleetseg/` of a vehicle."""
CURRENT = "current"
RECORD = "release.json"
MOST = 1_000_000
"""Highest number of a release."""
_KEPT = 3  # releases to keep, always including the one in use
_NUMBER = re.compile(r"\d{4,7}")


@dataclass(frozen=True)
class HeldRelease:
    """A complete release in this folder."""

    number: int
    digest: str  # over the names and digests of the files
    folder: Path

    def told(self) -> dict[str, Any]:
        """Return what a vehicle reports about the release in use."""
        return {"release": self.number, "digest": self.digest}


def digest_of(files: Mapping[str, str]) -> str:
    """Return the SHA-256 over the names and digests of a release's files."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def read_told(fields: Any) -> dict[str, Any]:
    """Read which release a vehicle reports as in use; empty if none, or if invalid."""
    if not isinstance(fields, dict):
        return {}
    number, digest = fields.get("release"), fields.get("digest")
    if type(number) is not int or not 0 < number <= MOST or not isinstance(digest, str):
        return {}
    return {"release": number, "digest": digest} if re.fullmatch("[0-9a-f]{64}", digest) else {}


def current_release(models: Path) -> HeldRelease | None:
    """Return the release in use here; None if there is none, or its files are damaged."""
    try:
        text = (models / CURRENT).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return _whole(models / text) if _NUMBER.fullmatch(text) else None


def _whole(folder: Path) -> HeldRelease | None:
    try:
        files = dict(json.loads((folder / RECORD).read_text(encoding="utf-8"))["files"])
        for name, digest in files.items():
            with open(folder / Path(name).name, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return HeldRelease(int(folder.name), digest_of(files), folder)


def store(models: Path, number: int, files: Files) -> Path:
    """Store the files of a release, completely or not at all; returns its folder.

    Raises:
        OSError: it cannot be written; no part of it is left behind.
    """
    models.mkdir(parents=True, exist_ok=True)
    for left in models.glob(".*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    folder = models / f"{number:04d}"
    unfinished = models / f".{number:04d}.{uuid.uuid4().hex[:12]}.tmp"
    try:
        unfinished.mkdir()
        for name, data in files.items():
            _write(unfinished / name, data)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        record = json.dumps({"number": number, "files": digests}, indent=1) + "\n"
        _write(unfinished / RECORD, record.encode())
        if folder.exists():  # damaged, or of another registry with the same numbers
            os.rename(folder, models / f".{number:04d}.{uuid.uuid4().hex[:12]}.old.tmp")
        os.rename(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    sync_folder(models)
    return folder


def drive(models: Path, number: int) -> HeldRelease:
    """Put a stored release into use; delete the oldest if there are too many.

    Raises:
        UpdateRejected: the release is not as it was stored.
        OSError: `current` cannot be written.
    """
    held = _whole(models / f"{number:04d}")
    if held is None:
        raise UpdateRejected("damaged", f"release {number:04d} is not as it was stored")
    write_atomic(models / CURRENT, f"{number:04d}\n")
    others = [p for p in models.iterdir() if _NUMBER.fullmatch(p.name) and int(p.name) != number]
    by_age = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
    for old in [*by_age[_KEPT - 1 :], *models.glob(".*.tmp")]:
        shutil.rmtree(old, ignore_errors=True)
    return held


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
