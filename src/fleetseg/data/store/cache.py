"""Samples decoded once: memory-mapped uint8, keyed by content; images and labels lie apart.

The name of a folder is a digest of everything its pixels depend on, so it is never out of date; it
is just not asked for any more (`fleetseg data cache prune`). It appears under that name by one
rename, when whole. Images are kept once for a size, whatever labels are wanted with them; labels
once for a label space and a size, or at their own size for all sizes of images.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import LabelSpace, projection
from fleetseg.data.sample import Source
from fleetseg.data.sources import evenly_spaced
from fleetseg.data.sources.reading import image_size
from fleetseg.data.store.build import Plan, build, facts_of
from fleetseg.data.store.decoding import Size_HW, file_settings
from fleetseg.data.store.digests import known_digests, sample_digests
from fleetseg.data.store.folder import default_cache_dir
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
from fleetseg.errors import BadSample, CheckpointError, DataError
from fleetseg.files import sync_folder, write_atomic
from fleetseg.text import size_text

__all__ = ["Picked", "Pooled", "Store", "View", "default_cache_dir", "open_store", "open_stores"]

MEMO = "digests.json"
_ATTEMPTS = 10
_PROBES = 16  # samples whose heads tell the size of labels
Progress = Callable[[str, int, int], None]
"""Called with (what is being read, how many are done, of how many)."""


def open_store(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    native_labels: bool,
    progress: Progress | None = None,
) -> Store:
    """Open a source with one kind of labels; see `open_stores`."""
    (store,) = open_stores(
        source,
        size_hw=size_hw,
        space=space,
        cache_dir=cache_dir,
        native_labels=(native_labels,),
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
    progress: Progress | None = None,
) -> tuple[Store, ...]:
    """Open a source with some kinds of labels, decoding what was never decoded like this.

    Images come at `size_hw`. Labels come projected to `space`: for each False in `native_labels` at
    `size_hw` for training, for each True at their own resolution, where IoU is taken. A sample that
    cannot be used is noted in `Store.bad`. `progress` is called while decoding only, and tells how
    much room is taken where.

    Raises:
        DataError: the source is empty, the disk is full, or the cache folder cannot be written.
        ConfigError: the source's labels cannot be projected to `space`.
    """
    found = _get(source, size_hw, space, cache_dir, native_labels, progress)
    return tuple(Store.load(found.images, found.labels[n]) for n in native_labels)


def find_store(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    native_labels: bool,
) -> Store | None:
    """Open a source if it was decoded like this before, else None; no file of it is read.

    Raises:
        ConfigError: the source's labels cannot be projected to `space`.
    """
    digests = known_digests(source, cache_dir / MEMO)
    if digests is None:
        return None
    with _disk_troubles(cache_dir):
        found = _find(cache_dir, _plan(source, digests, size_hw, space), (native_labels,))
    return None if found.missing else Store.load(found.images, found.labels[native_labels])


def label_histograms(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    progress: Progress | None = None,
) -> npt.NDArray[np.int64]:
    """Return `Store.histograms_NC` of labels at `size_hw` without decoding images.

    Raises:
        DataError, ConfigError: as for `open_stores`.
    """
    found = _get(source, size_hw, space, cache_dir, (False,), progress, images=False)
    _, index = open_folder(found.labels[False], LABELS)
    return np.array(index["histograms"], dtype=np.int64).reshape(len(source.samples), -1)


def _plan(
    source: Source,
    digests: tuple[tuple[str, str], ...],
    size_hw: tuple[int, int],
    space: LabelSpace,
) -> Plan:
    table = projection(source.space, space)
    return Plan(source, digests, (int(size_hw[0]), int(size_hw[1])), space, table)


def _get(
    source: Source,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    native_labels: Sequence[bool],
    progress: Progress | None,
    *,
    images: bool = True,
) -> _Found:
    """Find labels, and images if wanted, or make them."""
    if not source.samples:
        raise DataError("no samples", where=source.name, cure="Check the root and the split")
    projection(source.space, space)  # before files are read
    with _disk_troubles(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        plan = _plan(source, sample_digests(source, cache_dir / MEMO), size_hw, space)
        found = _find(cache_dir, plan, native_labels, images=images)
        for _ in range(_ATTEMPTS):
            if not found.missing:
                return found
            found = _make(found, plan, cache_dir, progress)
    raise DataError("stores are removed as fast as they are made", where=cache_dir)


@dataclass(frozen=True)
class _Found:
    """Where the parts of some stores are, or ought to be; none can be removed meanwhile."""

    images: Path
    labels: dict[bool, Path]  # by whether labels are native
    native_hw: tuple[Size_HW | None, ...]  # of the images; empty: not known
    missing: frozenset[Path]
    held: list[npt.NDArray[np.uint8]]  # maps, which keep the parts in use


def _find(
    cache_dir: Path, plan: Plan, native_labels: Iterable[bool], *, images: bool = True
) -> _Found:
    """Look for the parts of some stores, and say so where the files lie elsewhere now."""
    name = re.sub(r"[^\w.-]+", "_", plan.source.name)[:60].lstrip(".")
    images_at = cache_dir / f"{name}-images-{plan.images_key[:32]}"
    found = _Found(images_at, {}, (), frozenset({images_at} if images else ()), [])
    index = _hold(images_at, IMAGES, found)
    if index is not None:
        native_hw = tuple(None if hw is None else (hw[0], hw[1]) for hw in index["native_hw"])
        found = replace(found, native_hw=native_hw, missing=frozenset())
    for native in native_labels:
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
    """The size of labels, None for their own: also where all images are of that size anyway."""
    same = bool(native_hw) and all(hw in (None, plan.size_hw) for hw in native_hw)
    return None if native or same else plan.size_hw


@contextmanager
def _disk_troubles(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:  # of write_atomic: the disk is full
        raise _disk_full(cache_dir) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(cache_dir) from None
        at = Path(error.filename or "")  # else it is a source's trouble, and not ours to explain
        if cache_dir in (at, *at.parents) or at in cache_dir.parents:
            raise DataError(
                f"the cache folder cannot be written ({error.strerror})",
                where=cache_dir,
                cure="Set FLEETSEG_CACHE to a folder of yours",
            ) from None
        raise


def _disk_full(cache_dir: Path, needed: int = 0, free: int | None = None) -> DataError:
    return DataError(
        "no space left on the disk for the cache",
        where=cache_dir,
        got=None if free is None else f"{size_text(free)} free",
        expected=f"about {size_text(needed)}" if needed else None,
        cure="Free some space (fleetseg data cache prune), choose a smaller data.size, "
        "or set FLEETSEG_CACHE to a folder on another disk",
    )


def _make(found: _Found, plan: Plan, cache_dir: Path, progress: Progress | None) -> _Found:
    """Decode what is missing, in one pass over the source."""
    sweep(cache_dir)
    kinds = [native for native, path in found.labels.items() if path in found.missing]
    images = found.images in found.missing
    num_bytes = _num_bytes(plan, images, kinds, found.native_hw)
    free = shutil.disk_usage(cache_dir).free
    if free < num_bytes:  # say so before decoding for long
        raise _disk_full(cache_dir, num_bytes, free)
    what = f"{plan.source.name}/{plan.source.samples[0].split}"
    what += f" (about {size_text(num_bytes)} in {cache_dir})"
    images_at = new_unfinished(cache_dir) if images else None
    labels_at = {native: new_unfinished(cache_dir) for native in kinds}
    sizes = [(at, _label_size(plan, k, found.native_hw)) for k, at in labels_at.items()]
    try:
        with build(plan, images_at, sizes, found.native_hw, partial(progress or _silent, what)):
            if images_at is not None:
                _publish(images_at, found.images)
            # Now that the images' own sizes are known, two kinds of labels may have become one.
            final = _find(cache_dir, plan, found.labels, images=images)
            for native, at in labels_at.items():
                _publish(at, final.labels[native])
            opened.cache_clear()
            return _find(cache_dir, plan, found.labels, images=images)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(cache_dir, num_bytes, shutil.disk_usage(cache_dir).free) from None
        raise
    finally:
        for half in (*labels_at.values(), *([images_at] if images_at else ())):
            shutil.rmtree(half, ignore_errors=True)


def _silent(what: str, done: int, of: int) -> None:
    pass


def _num_bytes(
    plan: Plan, images: bool, kinds: Sequence[bool], native_hw: tuple[Size_HW | None, ...]
) -> int:
    """Estimate how many bytes of pixels will be written, from the heads of some files."""
    samples, pixels = plan.source.samples, plan.size_hw[0] * plan.size_hw[1]
    num_labelled = sum(sample.label is not None for sample in samples)
    num_bytes = 3 * pixels * len(samples) * images
    for native in kinds:
        mean = _mean_pixels(plan, native_hw) if native else None
        num_bytes += round((mean or pixels) * num_labelled)
    return num_bytes


def _mean_pixels(plan: Plan, native_hw: tuple[Size_HW | None, ...]) -> float | None:
    sizes = [hw for hw in native_hw if hw is not None]
    if not native_hw and file_settings(plan.source) is not None:
        for sample in evenly_spaced(plan.source.samples, _PROBES):
            with suppress(BadSample):
                sizes.append(image_size(sample.image))
    return float(np.mean([height * width for height, width in sizes])) if sizes else None


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
            return None  # somebody else was faster: the content is the same, by the name's meaning
        broken = new_unfinished(path.parent)
        with suppress(FileNotFoundError):
            os.rename(path, broken)
        shutil.rmtree(broken, ignore_errors=True)
