"""Choose the folder for decoded samples: as configured, the user's cache, or a temporary folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fleetseg.errors import DataError
from fleetseg.hosts import can_write, home, path_from_environment, temporary_folder

VARIABLE = "FLEETSEG_CACHE"
_CURE = f"Set {VARIABLE} to a folder of your own"


@dataclass(frozen=True)
class CacheFolder:
    """A folder, and what the user should know about the choice."""

    path: Path
    note: str = ""


def default_cache_dir() -> Path:
    """Return $FLEETSEG_CACHE, or fleetseg/ in the user's cache folder.

    Raises:
        ConfigError, DataError: see `cache_folder`.
    """
    return cache_folder().path


def cache_folder() -> CacheFolder:
    """Choose the folder; a user without a writable home folder gets a temporary one.

    Raises:
        ConfigError: FLEETSEG_CACHE cannot be expanded, or there is no folder at all.
        DataError: the temporary folder belongs to another user or cannot be made.
    """
    if chosen := path_from_environment(VARIABLE):
        return CacheFolder(chosen.absolute())
    base, why = _users_cache()
    if base is not None:
        return CacheFolder(base / "fleetseg")
    folder = _temporary()
    note = f"{why}, so decoded samples are kept in {folder}; set {VARIABLE} to a folder that lasts"
    return CacheFolder(folder, note)


def _users_cache() -> tuple[Path | None, str]:
    """Return the user's cache folder, or None and the reason."""
    named = path_from_environment("XDG_CACHE_HOME")
    if named is not None and named.is_absolute():  # the XDG specification: ignore relative paths
        if can_write(named):
            return named, ""
        return None, f"XDG_CACHE_HOME ({named}) cannot be written to"
    at_home = home()
    if at_home is None:
        return None, "this user has no home folder"
    if not can_write(at_home / ".cache" / "fleetseg"):
        return None, f"the home folder ({at_home}) cannot be written to"
    return at_home / ".cache", ""


def _temporary() -> Path:
    who = os.getuid() if hasattr(os, "getuid") else "cache"
    folder = temporary_folder() / f"fleetseg-{who}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Anyone may write to the parent folder: do not use what another user put there.
        if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
            raise DataError("the cache folder belongs to another user", where=folder, cure=_CURE)
    except OSError as error:
        raise DataError(
            f"the cache folder cannot be made ({error.strerror})", where=folder, cure=_CURE
        ) from None
    return folder
