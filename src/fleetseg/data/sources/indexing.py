"""Listing files and pairing images with labels by stem; nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.sample import Sample
from fleetseg.errors import ConfigError, DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""What counts as a picture file in an index; whether it is one shows when it is read."""


def stems(folder: Path, ending: str = "") -> dict[str, str]:
    """Map the relative stem ("drive/frame") of each picture below `folder` to its path.

    Only files whose name before the suffix ends in `ending` count; the stem is without it.

    Raises:
        DataError: two files of one folder share a stem, so that labels cannot be told apart.
    """
    found: dict[str, str] = {}
    for relative, path in _pictures(folder, ""):
        if not relative.endswith(ending):
            continue
        stem = relative.removesuffix(ending)
        if stem in found:
            raise DataError(
                "two pictures share a name",
                where=folder,
                got=f"{Path(found[stem]).name} and {Path(path).name}",
                expected="one file per stem",
                cure="Rename or remove one",
            )
        found[stem] = path
    return found


def _pictures(folder: Path, prefix: str) -> Iterable[tuple[str, str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list the folder ({error.strerror})", where=folder) from None
    for entry in entries:
        if entry.name.startswith("."):  # .DS_Store, ._copies of macOS, .ipynb_checkpoints
            continue
        if entry.is_dir():
            yield from _pictures(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in SUFFIXES:
                yield prefix + stem, entry.path


def pair(
    images: dict[str, str],
    labels: dict[str, str] | None,
    *,
    image_at: Callable[[str], Path],
    label_at: Callable[[str], Path],
) -> list[tuple[str, str, str | None]]:
    """Return (stem, image path, label path) of every stem on either side, sorted by stem.

    A missing side gets the path where the file ought to be (`image_at`, `label_at`), so that
    reading the sample tells what is missing. `labels` None = the data set has none.
    """
    if labels is None:
        return [(stem, path, None) for stem, path in sorted(images.items())]
    return [
        (
            stem,
            images.get(stem) or str(image_at(stem)),
            labels.get(stem) or str(label_at(stem)),
        )
        for stem in sorted(images.keys() | labels.keys())
    ]


def ordered(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return samples by domain, drive, frame and id."""
    return tuple(sorted(samples, key=lambda s: (s.domain, s.sequence, s.frame, s.id)))


def last_number(text: str) -> int:
    """Return the last whole number in a file name, 0 if there is none.

    >>> last_number("0006R0_f00930")
    930
    """
    numbers = re.findall(r"[0-9]+", text)
    return int(numbers[-1]) if numbers else 0


def subfolders(folder: Path) -> tuple[str, ...]:
    """Return the sorted names of the folders directly below; () if there is no such folder."""
    if not folder.is_dir():
        return ()
    return tuple(
        sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    )


def existing_root(config: SourceConfig) -> Path:
    """Return the root folder of a source on disk.

    Raises:
        ConfigError: no root is given.
        DataError: there is no such folder.
    """
    if not config.root:
        raise ConfigError(
            f"a source of kind '{config.kind}' needs a root", cure="Set root to its folder"
        )
    root = Path(config.root)
    if not root.is_dir():
        raise DataError("folder not found", where=root, cure="Check the source's root")
    return root


def check_split(
    config: SourceConfig, root: Path, found: Sequence[str], looked_for: Sequence[str]
) -> None:
    """Check that the split is there.

    Raises:
        DataError: no known layout (tells which were looked for and what is there) or no such split.
    """
    if not found:
        raise wrong_layout(root, f"no {config.kind} data set", looked_for)
    if config.split not in found:
        raise DataError(
            f"no split '{config.split}'",
            where=root,
            expected="one of: " + ", ".join(found),
            cure="Set the source's split",
        )


def wrong_layout(root: Path, what: str, looked_for: Sequence[str]) -> DataError:
    """Build the error for a folder that is none of the layouts looked for."""
    names = sorted(e.name + ("/" if e.is_dir() else "") for e in os.scandir(root))
    rest = len(names) - 10
    listing = ", ".join(names[:10]) + (f" and {rest} more" if rest > 0 else "")
    return DataError(
        what,
        where=root,
        got=f"a folder with {listing}" if names else "an empty folder",
        expected=" or ".join(looked_for),
        cure="Point root at the folder that holds these",
    )


def check_not_empty(samples: Sequence[Sample], folder: Path) -> None:
    """Raise DataError if the folder of an existing split holds no picture."""
    if not samples:
        raise DataError(
            "no pictures in the folder",
            where=folder,
            expected="files that end in " + " ".join(SUFFIXES),
        )
