"""List files and pair images with labels by stem; nothing is decoded here."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.sample import Sample
from fleetseg.data.sources.walking import SUFFIXES, on_disk, pictures
from fleetseg.errors import ConfigError, DataError
from fleetseg.text import composed, listing

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def stems(folder: Path, ending: str = "", *, but_not: Sequence[str] = ()) -> dict[str, str]:
    """Map the relative stem ("drive/frame") of each picture below `folder` to its path.

    Only files whose name before the suffix ends in `ending`, and in none of `but_not`, count; the
    stem excludes `ending`.

    Raises:
        DataError: two files of one folder share a stem, so pairing would be ambiguous.
    """
    found: dict[str, str] = {}
    for relative, path in pictures(folder):
        if not relative.endswith(ending) or (but_not and relative.endswith(tuple(but_not))):
            continue
        stem = relative.removesuffix(ending)
        if stem in found:
            raise DataError(
                "two pictures share a name",
                where=folder,
                got=f"{Path(found[stem]).name} and {Path(path).name}",
                expected="one file per stem, whatever its Unicode form",
                cure="Rename or remove one",
            )
        found[stem] = path
    return found


def pair(
    images: dict[str, str],
    labels: dict[str, str] | None,
    *,
    image_at: Callable[[str], Path],
    label_at: Callable[[str], Path],
) -> list[tuple[str, str, str | None]]:
    """Return (stem, image path, label path) for every stem of an image or label, sorted by stem.

    A missing file gets the path where it should be (`image_at`, `label_at`), so that reading the
    sample reports it. `labels` None = the data set has none.
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


def without_siblings(
    images: dict[str, str], labels: dict[str, str]
) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Drop unpaired files that accompany a sample, such as 1_vis or 1_thumb beside 1.

    Returns:
        The images and the labels that are left, and a note that counts what was dropped, if any.
    """
    both = images.keys() & labels.keys()
    dropped = [
        {stem: path for stem, path in files.items() if stem not in both and _beside(stem, both)}
        for files in (images, labels)
    ]
    paths = sorted(path for files in dropped for path in files.values())
    if not paths:
        return images, labels, ()
    note = (
        f"{len(paths)} files beside samples have no image or label of their own; "
        f"they are ignored: {listing([Path(path).name for path in paths])}"
    )
    left = [
        {stem: path for stem, path in files.items() if stem not in gone}
        for files, gone in zip((images, labels), dropped, strict=True)
    ]
    return left[0], left[1], (note,)


def common_ending(images: dict[str, str], labels: dict[str, str]) -> str:
    """Return the ending that all label stems add to their image's stem, "" if they do not agree.

    An ending begins with a separator and has no digit: 12 and 1_2 are not frame 1 with an ending.

    >>> common_ending({"a": "", "b": ""}, {"a_mask": "", "b_mask": ""})
    '_mask'
    """
    if not labels or any(stem in images for stem in labels):
        return ""
    first = min(labels)
    for cut in range(len(first) - 1, first.rfind("/") + 1, -1):
        ending = first[cut:]
        if not re.fullmatch(r"[_.\- ][^0-9]+", ending):
            continue
        if all(s.endswith(ending) and s.removesuffix(ending) in images for s in labels):
            return ending
    return ""


def _beside(stem: str, both: Set[str]) -> bool:
    # Exclude digits: 1_2 is another frame without a partner, not a companion of frame 1.
    cuts = re.finditer(r"[_.\- ](?=[^0-9/]+$)", stem)
    return any(stem[: cut.start()] in both for cut in cuts)


def ordered(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return samples sorted by domain, drive, frame and id."""
    return tuple(sorted(samples, key=lambda s: (s.domain, s.sequence, s.frame, s.id)))


def last_number(text: str) -> int:
    """Return the last whole number in a file name, 0 if there is none.

    >>> last_number("0006R0_f00930")
    930
    """
    numbers = re.findall(r"[0-9]+", text)
    return int(numbers[-1]) if numbers else 0


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
    root = on_disk(Path(config.root))
    require_folder(root, cure="Check the source's root")
    return root


def require_folder(path: Path, cure: str | None = None) -> None:
    """Check that there is a folder, as opposed to nothing, a file, or a link to what is gone.

    Raises:
        DataError: there is none; the cure is `cure` where nothing better is known.
    """
    if path.is_dir():
        return
    if path.exists():
        is_archive = path.name.lower().endswith(_ARCHIVES)
        raise DataError(
            "not a folder",
            where=path,
            got="an archive" if is_archive else "a file",
            cure="Unpack it, and name the folder" if is_archive else cure or "Name the folder",
        )
    if path.is_symlink():
        got = f"a link to {os.readlink(path)}, which cannot be reached"
        raise DataError("folder not found", where=path, got=got, cure="Is the disk mounted?")
    raise DataError("folder not found", where=path, cure=cure)


def check_split(
    config: SourceConfig, root: Path, found: Sequence[str], looked_for: Sequence[str]
) -> None:
    """Check that the split exists.

    Raises:
        DataError: no known layout (lists the layouts tried and the files found) or no such split.
    """
    if not found:
        raise wrong_layout(root, f"no {config.kind} data set", looked_for)
    if composed(config.split) not in found:
        raise DataError(
            f"no split '{config.split}'",
            where=root,
            expected="one of: " + ", ".join(found),
            cure="Set the source's split",
        )


def wrong_layout(root: Path, what: str, looked_for: Sequence[str]) -> DataError:
    """Build the error for a folder that matches none of the layouts looked for."""
    names = sorted(e.name + ("/" if e.is_dir() else "") for e in os.scandir(root))
    return DataError(
        what,
        where=root,
        got=f"a folder with {listing(names, 10)}" if names else "an empty folder",
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
