"""The cache of decoded samples: memory-mapped uint8, keyed by content, images apart from labels.

A folder's name is a digest of everything its pixels depend on, so it is never out of date; it is
merely no longer requested (`fleetseg data cache prune`). It gets that name by one rename when it is
complete. Images are stored once per size, whatever labels go with them; labels once per label space
and size, or at their native size for all image sizes. Images may stay in their files: then only
their metadata is stored, once for all sizes.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import LabelSpace, projection
from fleetseg.data.sample import Source
from fleetseg.data.store.build import LabelsTo, Plan, build, facts_of
from fleetseg.data.store.decoding import Size_HW
from fleetseg.data.store.digests import known_digests, sample_digests
from fleetseg.data.store.folder import default_cache_dir
from fleetseg.data.store.image_files import ImageFiles
from fleetseg.data.store.room import disk_full, num_bytes, require_room
from fleetseg.data.store.store import (
    IMAGES,
    INDEX,
    LABELS,
    Picked,
    Pooled,
    Store,
    View,
    open_folder,
    opened,
    read_index,
)
from fleetseg.data.store.unfinished import new_unfinished, sweep
from fleetseg.errors import CheckpointError, DataError
from fleetseg.files import is_disk_full, sync_folder, write_atomic
from fleetseg.text import size_text

__all__ = ["Picked", "Pooled", "Store", "View", "default_cache_dir", "open_store", "open_stores"]

MEMO = "digests.json"
_ATTEMPTS = 10
Progress = Callable[[str, int, int], None]
"""Called with (what is being read, number done, total)."""


def open_store(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    native_labels: bool,
    from_files: bool = False,
    progress: Progress | None = None,
) -> Store:
    """Open a source with one kind of label; see `open_stores`."""
    (store,) = open_stores(
        source,
        size_hw=size_hw,
        space=space,
        cache_dir=cache_dir,
        native_labels=(native_labels,),
        from_files=from_files,
        progress=progress,
    )
    return store


def open_stores(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    native_labels: Sequence[bool],
    from_files: bool = False,
    progress: Progress | None = None,
) -> tuple[Store, ...]:
    """Open a source with one or both kinds of labels, decoding whatever the cache lacks.

    Images have size `size_hw`. Labels are projected to `space`: each False in `native_labels` gives
    a store with labels at `size_hw` for training, each True one with labels at their native
    resolution, at which IoU is computed; these are compressed, since each is read once per
    evaluation. Unusable samples are recorded in `Store.bad`. `from_files` leaves images in their
    files and decodes each on demand, to the same pixels. `progress` is called only if something
    must be decoded, first before decoding starts (0 done), and says how much space is used where.

    Raises:
        DataError: the source is empty, the disk is full, or the cache folder cannot be written.
        ConfigError: the source's labels cannot be projected to `space`.
    """
    files = _image_files(source, size_hw, from_files)
    wanted = _Wanted(size_hw, space, tuple(native_labels), from_files)
    found = _get(source, wanted, cache_dir, progress)
    return tuple(Store.load(found.images, found.labels[n], files) for n in native_labels)


def find_store(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    native_labels: bool,
    from_files: bool = False,
) -> Store | None:
    """Open a source if the cache has it with these settings, else None; none of its files is read.

    Raises:
        ConfigError: the source's labels cannot be projected to `space`.
    """
    files = _image_files(source, size_hw, from_files)
    digests = known_digests(source, cache_dir / MEMO)
    if digests is None:
        return None
    wanted = _Wanted(size_hw, space, (native_labels,), from_files)
    with _disk_troubles(cache_dir):
        found = _find(cache_dir, _plan(source, digests, wanted), wanted)
    return None if found.missing else Store.load(found.images, found.labels[native_labels], files)


def label_histograms(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    from_files: bool = False,
    progress: Progress | None = None,
) -> npt.NDArray[np.int64]:
    """Return `Store.histograms_NC` of labels at `size_hw`, without decoding images.

    Raises:
        DataError, ConfigError: as for `open_stores`.
    """
    wanted = _Wanted(size_hw, space, (False,), from_files, images=False)
    found = _get(source, wanted, cache_dir, progress)
    _, index = open_folder(found.labels[False], LABELS)
    return np.array(index["histograms"], dtype=np.int64).reshape(len(source.samples), -1)


@dataclass(frozen=True)
class _Wanted:
    """Which parts of a source to open, and how."""

    size_hw: Size_HW
    space: LabelSpace
    native_labels: tuple[bool, ...]
    from_files: bool
    images: bool = True


def _image_files(source: Source, size_hw: Size_HW, from_files: bool) -> ImageFiles | None:
    """Must be called before digests are computed, so that later changes of files are detected."""
    return ImageFiles.of(source, size_hw, time.time_ns()) if from_files else None


def _plan(source: Source, digests: tuple[tuple[str, str], ...], wanted: _Wanted) -> Plan:
    table = projection(source.space, wanted.space)
    size_hw = int(wanted.size_hw[0]), int(wanted.size_hw[1])
    return Plan(source, digests, size_hw, wanted.space, table, wanted.from_files)


def _get(source: Source, wanted: _Wanted, cache_dir: Path, progress: Progress | None) -> _Found:
    """Find labels, and images if wanted, or build them."""
    if not source.samples:
        raise DataError("no samples", where=source.name, cure="Check the root and the split")
    projection(source.space, wanted.space)  # fail before files are read
    with _disk_troubles(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        plan = _plan(source, sample_digests(source, cache_dir / MEMO), wanted)
        found = _find(cache_dir, plan, wanted)
        for _ in range(_ATTEMPTS):
            if not found.missing:
                return found
            found = _make(found, plan, wanted, cache_dir, progress)
    raise DataError(
        "stores of decoded samples are removed as fast as they are built", where=cache_dir
    )


@dataclass(frozen=True)
class _Found:
    """Where the parts of stores are, or should be; parts found cannot be removed meanwhile."""

    images: Path
    labels: dict[bool, Path]  # by whether labels are native
    native_hw: tuple[Size_HW | None, ...]  # of the images; empty: unknown
    missing: frozenset[Path]
    held: list[npt.NDArray[np.uint8]]  # memory maps, which mark the parts as in use


def _find(cache_dir: Path, plan: Plan, wanted: _Wanted) -> _Found:
    """Look for the parts of stores, and update their paths if the source's files have moved."""
    name = re.sub(r"[^\w.-]+", "_", plan.source.name)[:60].lstrip(".")
    kind = "files" if plan.from_files else "images"
    images_at = cache_dir / f"{name}-{kind}-{plan.images_key[:32]}"
    found = _Found(images_at, {}, (), frozenset({images_at} if wanted.images else ()), [])
    index = _hold(images_at, IMAGES, found)
    if index is not None:
        native_hw = tuple(None if hw is None else (hw[0], hw[1]) for hw in index["native_hw"])
        found = replace(found, native_hw=native_hw, missing=frozenset())
    for native in wanted.native_labels:
        size_hw = _label_size(plan, native, found.native_hw)
        labels = cache_dir / f"{name}-labels-{plan.labels_key(size_hw)[:32]}"
        found.labels[native] = labels
        index = _hold(labels, LABELS, found)
        if index is None:
            found = replace(found, missing=found.missing | {labels})
        elif index["samples"] != (samples := facts_of(plan.source)):
            write_atomic(labels / INDEX, json.dumps({**index, "samples": samples}))
            opened.cache_clear()
    return found


def _hold(folder: Path, pixels: str, found: _Found) -> dict[str, Any] | None:
    try:
        mapped, index = open_folder(folder, pixels)
    except DataError:
        return None
    found.held.append(mapped)
    return index


def _label_size(plan: Plan, native: bool, native_hw: tuple[Size_HW | None, ...]) -> Size_HW | None:
    """Return the size of labels; None = native, also used if all images have that size anyway."""
    same = bool(native_hw) and all(hw in (None, plan.size_hw) for hw in native_hw)
    return None if native or same else plan.size_hw


@contextmanager
def _disk_troubles(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:  # from write_atomic: the disk is full
        raise disk_full(cache_dir) from None
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(cache_dir) from None
        at = Path(error.filename or "")  # elsewhere, the error is the source's, not ours to explain
        if cache_dir in (at, *at.parents) or at in cache_dir.parents:
            raise DataError(
                f"the cache folder cannot be written to ({error.strerror})",
                where=cache_dir,
                cure="Set FLEETSEG_CACHE to a folder of your own",
            ) from None
        raise


def _make(
    found: _Found, plan: Plan, wanted: _Wanted, cache_dir: Path, progress: Progress | None
) -> _Found:
    """Decode what is missing, in one pass over the source."""
    sweep(cache_dir)
    images_at = new_unfinished(cache_dir) if found.images in found.missing else None
    labels_at = _new_labels(found, plan, cache_dir)
    needed = num_bytes(plan, images_at is not None, [*labels_at.values()], found.native_hw)
    require_room(cache_dir, needed)  # before decoding for long
    report = partial(progress or _silent, _what(plan, needed, cache_dir))
    try:
        with build(plan, images_at, [*labels_at.values()], found.native_hw, report):
            if images_at is not None:
                _publish(images_at, found.images)
            # Now that native sizes are known, both kinds of labels may turn out to be the same.
            final = _find(cache_dir, plan, wanted)
            for native, to in labels_at.items():
                _publish(to.path, final.labels[native])
            opened.cache_clear()
            return _find(cache_dir, plan, wanted)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(cache_dir, needed, shutil.disk_usage(cache_dir).free) from None
        raise
    finally:
        halves = [to.path for to in labels_at.values()]
        for half in [*halves, images_at] if images_at else halves:
            shutil.rmtree(half, ignore_errors=True)


def _new_labels(found: _Found, plan: Plan, cache_dir: Path) -> dict[bool, LabelsTo]:
    """Return how to build the missing labels; those for training come first.

    Training labels beside decoded images are not compressed, since every step reads them.
    """
    return {
        native: LabelsTo(
            new_unfinished(cache_dir),
            _label_size(plan, native, found.native_hw),
            packed=native or plan.from_files,
        )
        for native, path in sorted(found.labels.items())
        if path in found.missing
    }


def _what(plan: Plan, needed: int, cache_dir: Path) -> str:
    """Describe what is decoded, and the space it takes."""
    stay = "; images stay in their files" if plan.from_files else ""
    name = f"{plan.source.name}/{plan.source.samples[0].split}"
    return f"{name} (about {size_text(needed)} in {cache_dir}{stay})"


def _silent(what: str, done: int, of: int) -> None:
    pass


def _publish(half: Path, path: Path) -> None:
    while True:
        try:
            os.rename(half, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return sync_folder(path.parent)
        if any(read_index(path, pixels) for pixels in (IMAGES, LABELS)):
            return None  # another process was faster: the same name implies the same content
        broken = new_unfinished(path.parent)
        with suppress(FileNotFoundError):
            os.rename(path, broken)
        shutil.rmtree(broken, ignore_errors=True)
