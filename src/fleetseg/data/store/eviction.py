"""List the contents of a cache folder, and free space in it.

Only folders made by fleetseg are considered: those with a matching name that contain nothing but
its files. Nothing is removed while a running process has it open.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fleetseg.data.store import unfinished
from fleetseg.data.store.cache import MEMO
from fleetseg.data.store.digests import forget_stale
from fleetseg.data.store.locking import nobody_uses
from fleetseg.data.store.store import FORMAT_VERSION, IMAGES, INDEX, LABELS, read_index, read_json

State = Literal["whole", "half", "old format", "newer format"]
_DAY_S = 86_400.0
_NAME = re.compile(r".+-[0-9a-f]{32}", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A folder of the cache."""

    path: Path
    state: State
    in_use: bool  # a running process has it open or is writing it
    holds: str  # "images 192x256", "labels camvid11 360x480", ...
    source: str
    num_samples: int
    num_bytes: int  # on the disk
    last_used_s: float  # since the epoch

    @property
    def is_rest(self) -> bool:
        """Whether this is a leftover that no run will use again."""
        return self.state in ("half", "old format")


@dataclass(frozen=True)
class Kept:
    """A folder that should have been removed, and why it was not."""

    entry: Entry
    reason: str


@dataclass(frozen=True)
class Pruned:
    """What was removed (or would be)."""

    removed: tuple[Entry, ...]
    kept: tuple[Kept, ...]
    stale_digests: int  # remembered digests of files that are gone or have changed
    freed_bytes: int
    remaining_bytes: int


@dataclass(frozen=True)
class Rules:
    """What to remove besides leftovers, which are unfinished stores and those in an old format."""

    older_than_days: float | None = None
    keep_gb: float | None = None
    everything: bool = False


def entries(cache_dir: Path) -> list[Entry]:
    """List the folders of a cache, most recently used first."""
    found = []
    for path in _own_folders(cache_dir):
        with suppress(FileNotFoundError):  # another process removed it
            found.append(_entry(path))
    return sorted(found, key=lambda entry: (-entry.last_used_s, entry.path.name))


def prune(cache_dir: Path, rules: Rules, *, dry_run: bool = False) -> Pruned:
    """Remove leftovers and what the rules select, but nothing that a running process has open."""
    found = entries(cache_dir)
    removed, kept = [], []
    for entry in choose(found, rules, time.time()):
        reason = _in_the_way(entry) if dry_run else _remove(entry)
        if reason is None:
            removed.append(entry)
        else:
            kept.append(Kept(entry, reason))
    freed = sum(entry.num_bytes for entry in removed)
    stale = forget_stale(cache_dir / MEMO, dry_run=dry_run)
    if not dry_run:
        _remove_temporaries(cache_dir)
    remaining = sum(entry.num_bytes for entry in found) - freed
    return Pruned(tuple(removed), tuple(kept), stale, freed, remaining)


def choose(found: Sequence[Entry], rules: Rules, now_s: float) -> list[Entry]:
    """Select what to remove: leftovers, old stores, then the least recently used over `keep_gb`."""
    chosen = [entry for entry in found if entry.is_rest or rules.everything]
    if rules.older_than_days is not None:
        oldest_s = now_s - rules.older_than_days * _DAY_S
        chosen += [e for e in found if e not in chosen and e.last_used_s < oldest_s]
    if rules.keep_gb is not None:
        left = [entry for entry in found if entry not in chosen]
        room = rules.keep_gb * 1e9 - sum(entry.num_bytes for entry in left)
        for entry in sorted(left, key=lambda entry: entry.last_used_s):
            if room < 0 and not entry.in_use:
                chosen.append(entry)
                room += entry.num_bytes
    return chosen


def _own_folders(cache_dir: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(cache_dir) as found:
        for at in found:
            path = Path(at.path)
            named = unfinished.is_unfinished(path) or _NAME.fullmatch(at.name)
            if named and at.is_dir(follow_symlinks=False):
                with suppress(OSError):  # just removed, or not readable
                    files = unfinished.own_files(path)
                    if files or (files is not None and unfinished.is_unfinished(path)):
                        yield path


def _entry(path: Path) -> Entry:
    facts = [file.stat() for file in unfinished.own_files(path) or ()] or [path.stat()]
    index = read_json(path / INDEX) or {}
    entry = Entry(
        path=path,
        state=_state(path, index),
        in_use=False,
        holds=_holds(index),
        source=_source(index, path),
        num_samples=_count(index),
        num_bytes=sum(fact.st_blocks * 512 for fact in facts),
        last_used_s=max(fact.st_mtime for fact in facts),
    )
    return replace(entry, in_use=_in_the_way(entry) is not None)


def _state(path: Path, index: dict[str, Any]) -> State:
    if unfinished.is_unfinished(path):
        return "half"
    version = index.get("version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        return "old format" if version < FORMAT_VERSION else "newer format"
    return "whole" if any(read_index(path, pixels) for pixels in (IMAGES, LABELS)) else "half"


def _holds(index: dict[str, Any]) -> str:
    size = index.get("size_hw")
    at = f"{size[0]}x{size[1]}" if isinstance(size, list) and len(size) == 2 else ""
    if index.get("version") != FORMAT_VERSION or "pixels" not in index:
        return ""
    if index["pixels"][0] == LABELS:
        return f"labels {index.get('space')} {at or 'at their own size'}"
    return f"images {at}" if at else "facts of images that stay in their files"


def _source(index: dict[str, Any], path: Path) -> str:
    if "source" in index:
        return f"{index['source']}/{index.get('split')}"
    return "" if unfinished.is_unfinished(path) else path.name[:-33]


def _count(index: dict[str, Any]) -> int:
    samples = index.get("samples")
    return int(index.get("count") or (len(samples) if isinstance(samples, list) else 0))


def _in_the_way(entry: Entry) -> str | None:
    """Return why a folder cannot be removed now; None if it can."""
    if unfinished.is_unfinished(entry.path) and not unfinished.is_abandoned(entry.path):
        return "a process may still be writing it"
    if entry.state == "old format" and _is_mapped(entry.path):  # it has no locks
        return "a running process has it open"
    try:
        with nobody_uses((entry.path / IMAGES, entry.path / LABELS)) as free:
            return None if free else "a running process has it open"
    except OSError as error:
        return f"cannot determine whether it is in use ({error.strerror})"


def _is_mapped(folder: Path) -> bool:
    """Return whether any process that we may inspect has files of a folder mapped."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if f"{folder.resolve()}/" in maps.read_text(encoding="utf-8", errors="replace"):
                return True
    return False


def _remove(entry: Entry) -> str | None:
    """Remove a folder, file by file; return None, or why it was not removed."""
    reason = _in_the_way(entry)
    if reason is not None:
        return reason
    doomed = unfinished.new_unfinished(entry.path.parent)
    try:
        with nobody_uses((entry.path / IMAGES, entry.path / LABELS)) as free:
            if not free:
                return "a running process has it open"
            os.rename(entry.path, doomed)  # atomic: new openers no longer find it
        unfinished.remove(doomed)
    except OSError as error:
        return f"it cannot be removed ({error.strerror})"
    return None


def _remove_temporaries(cache_dir: Path) -> None:
    """Remove temporary files of killed processes that were writing digests."""
    with suppress(OSError):
        for path in cache_dir.iterdir():
            if (
                unfinished.TEMPORARY.fullmatch(path.name)
                and path.stat().st_mtime < time.time() - _DAY_S
            ):
                path.unlink()
