"""Walk folders, skipping the files that file servers and desktops leave behind.

Names are compared and returned in the form of `composed`, since macOS may spell them differently.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from fleetseg.errors import DataError
from fleetseg.text import composed

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""Suffixes of image files in an index; only reading a file shows whether it is an image."""

FOREIGN = frozenset({
    "@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "@sharebin",  # Synology, QNAP
    "#recycle", "#snapshot", "~snapshot", "lost+found",
    "__macosx", "network trash folder", "temporary items",
    "$recycle.bin", "recycler", "system volume information",
    "__pycache__",
})  # fmt: skip
"""Names, in lower case, of folders created by machines. Hidden folders are skipped too
(.ipynb_checkpoints, .Trash, .AppleDouble, .thumbnails), and hidden files (._x.png of macOS)."""

_Node = tuple[int, int]  # device and inode: identify a folder whatever its name


@dataclass
class _Walk:
    """Files found below a folder, and how far up the chain of open folders a link leads back."""

    files: list[tuple[str, str]]  # (stem relative to the start, path)
    back_to: int  # index in the chain; beyond its end if no link leads back


def is_foreign(name: str) -> bool:
    """Return whether a name is that of a machine-made file or folder, not part of a data set."""
    return name.startswith(".") or name.lower() in FOREIGN


def pictures(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[tuple[str, str]]:
    """Return (relative stem, path) of each picture file below `folder`, sorted by folder and name.

    Links to folders are followed, except those that lead back to a folder being walked.

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
    """Return the path as spelt on disk, if it differs only in the Unicode form of names."""
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
        # Check links only: some network file systems give every folder the same inode number.
        if entry.is_symlink() and (node := _node(Path(entry.path))) in chain:
            walk.back_to = min(walk.back_to, chain.index(node))
            continue
        inner = _walk(Path(entry.path), f"{prefix}{entry.name}/", chain, suffixes)
        walk.back_to = min(walk.back_to, inner.back_to)
        # A link whose target links back above here is part of a ring of links: each folder of the
        # ring is found at its own place.
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
    except OSError:  # a link to itself; reading it as a file will report that
        return False


def _node(folder: Path) -> _Node:
    try:
        facts = os.stat(folder)
    except OSError as error:
        raise DataError(f"cannot be opened ({error.strerror})", where=folder) from None
    return facts.st_dev, facts.st_ino
