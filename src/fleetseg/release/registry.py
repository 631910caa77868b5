"""The registry of released models: numbered, one of them current.

    models/0001/   model.safetensors, config.json ..., release.json, release.html
    models/current one line: the number of the release that the vehicles are to drive

A complete release appears under its number by one rename; `current` is replaced by one rename.
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

from fleetseg.errors import CheckpointError, ConfigError, ModelError
from fleetseg.files import disk_full, is_disk_full, sync_folder, write_atomic
from fleetseg.models.folder import find_model
from fleetseg.runs.lock import owning

CURRENT = "current"
RECORD = "release.json"
PAGE = "release.html"
_NUMBER = re.compile(r"\d{4,}")


@dataclass(frozen=True)
class Listed:
    """A release in the registry."""

    number: int
    folder: Path
    record: Mapping[str, Any]  # its release.json
    is_current: bool
    damage: str = ""  # how its files differ from the release; "" = they do not

    @property
    def replaced(self) -> int | None:
        """The release that it replaced as the current one."""
        value = self.record.get("replaces")
        return value if isinstance(value, int) else None


def releases(registry: Path) -> tuple[Listed, ...]:
    """List all releases, oldest first, with their files' digests checked.

    Raises:
        ConfigError: there is no registry.
    """
    if not registry.is_dir():
        raise ConfigError("there is no registry of releases", where=registry)
    numbers = sorted(int(p.name) for p in registry.iterdir() if _NUMBER.fullmatch(p.name))
    current = current_number(registry)
    return tuple(_listed(registry, number, number == current) for number in numbers)


def current_number(registry: Path) -> int | None:
    """Return the release that the vehicles are to drive; None if nothing was released.

    Raises:
        CheckpointError: the file does not hold a number.
    """
    try:
        text = (registry / CURRENT).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not _NUMBER.fullmatch(text):
        raise CheckpointError(
            "damaged: not the number of a release", where=registry / CURRENT, got=repr(text[:40]),
            cure="Write the number of a release into it, such as 0001",
        )  # fmt: skip
    return int(text)


def current_folder(registry: Path) -> Path | None:
    """Return the folder of the current release, its files checked; None if there is none.

    Raises:
        CheckpointError, ModelError: it is missing or has changed since its release.
    """
    number = current_number(registry)
    return None if number is None else _whole(_listed(registry, number, True)).folder


def chosen(registry: Path, number: int | None = None) -> Listed:
    """Return a release by its number, or else the current one, its files checked.

    Raises:
        ConfigError: there is no registry, no such release, or none is current.
        ModelError: one of its files is missing or has changed since its release.
    """
    known = {one.number: one for one in releases(registry)}
    wanted = current_number(registry) if number is None else number
    if wanted is None:
        raise ConfigError(
            "no release is current", where=registry, cure="Release a model first: fleetseg release"
        )
    if wanted not in known:
        raise _no_such(wanted, known, registry)
    return _whole(known[wanted])


def _no_such(number: int, known: Mapping[int, Listed], registry: Path) -> ConfigError:
    return ConfigError(
        f"there is no release {number:04d}",
        where=registry,
        expected="one of: " + ", ".join(f"{n:04d}" for n in known) if known else None,
    )


def publish(
    registry: Path, model: Path, record: Mapping[str, Any], page: str, judged_by: int | None
) -> Listed:
    """Copy a model into the registry under the next number, and make it the current one.

    `judged_by` is the release that was current when the model was judged.

    Raises:
        CheckpointError: another process is using the registry, or the disk is full; another model
            has become current meanwhile.
    """
    registry.mkdir(parents=True, exist_ok=True)
    with owning(registry):
        if (now := current_number(registry)) != judged_by:
            raise CheckpointError(
                "another model has become current while this one was judged",
                where=registry,
                got=now,
                expected=judged_by,
                cure="Judge it again",
            )
        number = max([0, *(one.number for one in releases(registry))]) + 1
        folder = registry / f"{number:04d}"
        unfinished = registry / f".{number:04d}.{uuid.uuid4().hex[:12]}.tmp"
        try:
            files = _copy(find_model(model), unfinished)
            whole = {"number": number, "replaces": now, **record, "files": files}
            write_atomic(unfinished / PAGE, page)
            write_atomic(unfinished / RECORD, json.dumps(whole, indent=1) + "\n")
            os.rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        sync_folder(registry)
        write_atomic(registry / CURRENT, f"{number:04d}\n")
        return _listed(registry, number, True)


def rollback(registry: Path, to: int | None = None) -> tuple[Listed, Listed]:
    """Make current the release that the current one replaced, or one by its number.

    Returns:
        the previously current release, and the one that is current now.

    Raises:
        ConfigError: there is no registry, no such release, or nothing to go back to.
        ModelError: one of its files is missing or has changed since its release.
    """
    if not registry.is_dir():
        raise ConfigError("there is no registry of releases", where=registry)
    with owning(registry):
        known = {one.number: one for one in releases(registry)}
        number = current_number(registry)
        if number is None or number not in known:
            raise ConfigError("no release is current", where=registry)
        target = known[number].replaced if to is None else to
        if target is None:
            raise ConfigError("the current release is the first: nothing to go back to",
                              where=registry)  # fmt: skip
        if target not in known:
            raise _no_such(target, known, registry)
        _whole(known[target])
        write_atomic(registry / CURRENT, f"{target:04d}\n")
        return known[number], _listed(registry, target, True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(model: Path, folder: Path) -> dict[str, str]:
    """Copy the files of a model folder; return the SHA-256 of each copy."""
    folder.mkdir()
    files = {}
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name not in (RECORD, PAGE) and not path.name.startswith("."):
            copy = folder / path.name
            try:
                shutil.copyfile(path, copy)
            except OSError as error:
                if is_disk_full(error):
                    raise disk_full(copy, path.stat().st_size) from None
                raise
            with open(copy, "rb") as file:
                os.fsync(file.fileno())
            files[path.name] = sha256_of(copy)
    return files


def _listed(registry: Path, number: int, is_current: bool) -> Listed:
    folder = registry / f"{number:04d}"
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        files = dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        damage = f"{RECORD} cannot be read ({type(error).__name__})"
        return Listed(number, folder, {}, is_current, damage)
    return Listed(number, folder, record, is_current, _damage(folder, files))


def _damage(folder: Path, files: Mapping[str, str]) -> str:
    for name, digest in files.items():
        path = folder / Path(name).name
        if not path.is_file():
            return f"{name} is missing"
        if sha256_of(path) != digest:
            return f"{name} has changed since the release"
    return ""


def _whole(release: Listed) -> Listed:
    if release.damage:
        raise ModelError(
            f"release {release.number:04d} cannot be used: {release.damage}",
            where=release.folder,
            cure="Go to another one: fleetseg rollback --to NUMBER",
        )
    return release
