"""Walking folders as people have them: without what file servers and desktops leave behind.

Names are compared and returned as `composed`: a Mac writes the same name otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fleetseg.errors import DataError
from fleetseg.text import composed

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""What counts as a picture file in an index; whether it is one shows when it is read."""

FOREIGN = frozenset({
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "@sharebin",  # Synology, QNAP
    "#recycle", "#snapshot", "~snapshot", "lost+found",
    "__macosx", "network trash folder", "temporary items",
    "$recycle.bin", "recycler", "system volume information",
    "__pycache__",
})  # fmt: skip
"""Folders, in lower case, that machines make beside people's files. So is any hidden one:
.ipynb_checkpoints, .Trash, .AppleDouble, .thumbnails; and any hidden file: ._x.png of macOS."""

_Node = tuple[int, int]  # device and inode: one and the same folder, under whatever name


@dataclass
class _Walk:
    """Files found below a folder, and how far up the chain of open folders a link led back."""

    files: list[tuple[str, str]]  # (stem relative to the start, path)
    back_to: int  # place in the chain; beyond its end if no link led back


def is_foreign(name: str) -> bool:
    """Say whether a file or folder of this name is a machine's own and no part of a data set."""
    return name.startswith(".") or name.lower() in FOREIGN


def pictures(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[tuple[str, str]]:
    """Return (relative stem, path) of each picture file below `folder`, sorted by folder and name.

    Links to folders are followed, but for those that lead back to where one came from.

    Raises:
        DataError: a folder cannot be listed.
    """
    above = [_node(parent) for parent in reversed(folder.resolve().parents)]
    return _walk(folder, "", above, suffixes).files


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders directly below; () if there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(
            composed(entry.name)
            for entry in os.scandir(folder)
            if not is_foreign(entry.name) and _is_dir(entry)
        )
    )


def on_disk(path: Path) -> Path:
    """Return the path as the disk spells it, where only the Unicode form of a name differs."""
    if path.exists() or path.parent == path:
        return path
    parent = on_disk(path.parent)
    wanted = composed(path.name)
    if parent.is_dir():
        for name in os.listdir(parent):
            if composed(name) == wanted:
                return parent / name
    return parent / path.name


def _walk(folder: Path, prefix: str, above: list[_Node], suffixes: Collection[str]) -> _Walk:
    chain = [*above, _node(folder)]
    walk = _Walk([], len(chain))
    for entry in _listed(folder):
        if is_foreign(entry.name):
            continue
        if not _is_dir(entry):
            if not (entry.is_symlink() or entry.is_file()):
                continue  # a pipe, whose reader waits for ever
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in suffixes:
                walk.files.append((composed(prefix + stem), entry.path))
            continue
        # Only a link leads back; some network file systems give every folder the same number.
        if entry.is_symlink() and (node := _node(Path(entry.path))) in chain:
            walk.back_to = min(walk.back_to, chain.index(node))
            continue
        inner = _walk(Path(entry.path), f"{prefix}{entry.name}/", chain, suffixes)
        walk.back_to = min(walk.back_to, inner.back_to)
        # A link whose folder leads back here stands in a ring of links: each of its folders is
        # found at its own place.
        if inner.back_to >= len(chain) or not entry.is_symlink():
            walk.files += inner.files
    return walk


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list the folder ({error.strerror})", where=folder) from None


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; reading it as a file will tell
        return False


def _node(folder: Path) -> _Node:
    try:
        facts = os.stat(folder)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror})", where=folder) from None
    return facts.st_dev, facts.st_ino
