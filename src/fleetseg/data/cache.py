"""Samples decoded once: memory-mapped uint8 at working resolution, keyed by content.

The name of a store is a digest of everything its pixels depend on, so a store is never out of
date; it is just not asked for any more. It appears under that name by one rename, when whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fleetseg.data.decoding import Decoded, decode
from fleetseg.data.digests import sample_digests
from fleetseg.data.labels import IGNORE, LabelSpace, Table, projection
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources.coding import LabelCode
from fleetseg.data.store import (
    IMAGES,
    INDEX,
    LABELS,
    Picked,
    Pooled,
    Store,
    View,
    opened,
    read_index,
)
from fleetseg.errors import BadSample, CheckpointError, DataError
from fleetseg.files import sync_folder, write_atomic

__all__ = ["Picked", "Pooled", "Store", "View", "default_cache_dir", "open_store"]

FORMAT_VERSION = 2  # raise it whenever the same files would give other bytes
_THREADS = min(8, os.cpu_count() or 1)
_AHEAD = 2 * _THREADS  # samples decoded ahead of the one being written
_ABANDONED_S = 3600.0  # a half store that nobody has written to for this long has no builder
Progress = Callable[[int, int], None]


def default_cache_dir() -> Path:
    """Return $FLEETSEG_CACHE, or fleetseg/ in the user's cache folder."""
    if chosen := os.environ.get("FLEETSEG_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fleetseg"


@dataclass(frozen=True)
class _Plan:
    """What a store is made of."""

    source: Source
    digests: tuple[tuple[str, str], ...]
    size_hw: tuple[int, int]
    space: LabelSpace
    native_labels: bool
    table: Table  # train ids of the source -> train ids of `space`


def open_store(
    source: Source,
    *,
    size_hw: tuple[int, int],
    space: LabelSpace,
    cache_dir: Path,
    native_labels: bool,
    progress: Progress | None = None,
) -> Store:
    """Open the store of a source, decoding it first if it was never decoded like this.

    Images come at `size_hw`. Labels come projected to `space`, at `size_hw` for training, or with
    `native_labels` at their own resolution, where IoU is taken. A sample that cannot be used is
    noted in `Store.bad`; `progress(done, of)` is called while decoding only.

    Raises:
        DataError: the source is empty, the disk is full, or the cache folder cannot be written.
        ConfigError: the source's labels cannot be projected to `space`.
    """
    if not source.samples:
        raise DataError("no samples", where=source.name, cure="Check the root and the split")
    table = projection(source.space, space)
    size_hw = (int(size_hw[0]), int(size_hw[1]))
    num_bytes = (3 if native_labels else 4) * size_hw[0] * size_hw[1] * len(source.samples)
    with _disk_troubles(cache_dir, num_bytes):
        cache_dir.mkdir(parents=True, exist_ok=True)
        digests = sample_digests(source, cache_dir / "digests.json")
        plan = _Plan(source, digests, size_hw, space, native_labels, table)
        name = re.sub(r"[^\w.-]+", "_", source.name)
        path = cache_dir / f"{name}-{_key(plan)[:32]}"
        index = read_index(path)
        if index is None:
            _make(path, plan, num_bytes, progress)
        elif (samples := _facts(source)) != index["samples"]:  # the files lie elsewhere now
            write_atomic(path / INDEX, json.dumps({**index, "samples": samples}))
            opened.cache_clear()
    return Store.load(path)


@contextmanager
def _disk_troubles(cache_dir: Path, num_bytes: int) -> Iterator[None]:
    try:
        yield
    except CheckpointError:  # of write_atomic: the disk is full
        raise _disk_full(cache_dir, num_bytes) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(cache_dir, num_bytes) from None
        at = Path(error.filename or "")  # else it is a source's trouble, and not ours to explain
        if cache_dir in (at, *at.parents) or at in cache_dir.parents:
            raise DataError(
                f"the cache folder cannot be written ({error.strerror})",
                where=cache_dir,
                cure="Set FLEETSEG_CACHE to a folder of yours",
            ) from None
        raise


def _disk_full(cache_dir: Path, num_bytes: int) -> DataError:
    return DataError(
        f"no space left on the disk for the cache: at least {num_bytes:,} bytes needed",
        where=cache_dir,
        cure="Free some space, or set FLEETSEG_CACHE to a folder on another disk",
    )


def _key(plan: _Plan) -> str:
    """Digest everything the store's content depends on, except where the files lie."""
    source, space = plan.source, plan.space
    code = source.read.keywords.get("code") if isinstance(source.read, partial) else None
    facts: list[Any] = [FORMAT_VERSION, plan.size_hw, plan.native_labels]
    facts += [space.name, space.classes, source.space.classes, plan.table.tolist()]
    if isinstance(code, LabelCode):  # the user's classes.toml may have changed, the files not
        facts += [code.table.tolist(), code.known, code.colours, code.always_colours]
    hasher = hashlib.sha256(json.dumps(facts).encode())
    for sample, digest in zip(source.samples, plan.digests, strict=True):
        known = {**asdict(sample), "image": "", "label": sample.label is not None}
        hasher.update(json.dumps([known, digest]).encode())
    return hasher.hexdigest()


def _facts(source: Source) -> list[dict[str, Any]]:
    return [asdict(sample) for sample in source.samples]


def _make(path: Path, plan: _Plan, num_bytes: int, progress: Progress | None) -> None:
    _sweep(path.parent)
    if shutil.disk_usage(path.parent).free < num_bytes:  # say so before decoding for long
        raise _disk_full(path.parent, num_bytes)
    building = path.parent / f".building-{uuid.uuid4().hex}"
    building.mkdir()
    try:
        _build(building, plan, progress)
        _publish(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    opened.cache_clear()


def _publish(building: Path, path: Path) -> None:
    while True:
        try:
            os.rename(building, path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return sync_folder(path.parent)
        if read_index(path) is not None:
            return None  # somebody else was faster: the content is the same, by the name's meaning
        broken = building.with_name(f".building-{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            os.rename(path, broken)
        shutil.rmtree(broken, ignore_errors=True)


def _sweep(cache_dir: Path) -> None:
    """Remove half stores whose builders were killed."""
    for folder in cache_dir.glob(".building-*"):
        with suppress(OSError):
            newest = max(p.stat().st_mtime for p in (folder, *folder.iterdir()))
            if time.time() - newest > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)


def _build(folder: Path, plan: _Plan, progress: Progress | None) -> None:
    bad: dict[int, str] = {}
    rows: list[dict[str, Any]] = []
    decoded = _ahead(partial(_decode, plan=plan), plan.source.samples)
    with open(folder / IMAGES, "wb") as images, open(folder / LABELS, "wb") as labels:
        for i, result in enumerate(decoded):
            if isinstance(result, BadSample):
                bad[i] = str(result)
                result = np.zeros((*plan.size_hw, 3), np.uint8), np.zeros((0, 0), np.uint8)
            image_HWC, label_HW = result
            labelled = label_HW is not None and i not in bad
            if label_HW is None:
                label_HW = np.full(plan.size_hw, IGNORE, np.uint8)
            rows.append(_row(label_HW, labels.tell(), labelled, plan.space))
            _append(images, image_HWC)
            _append(labels, label_HW)
            if progress is not None:
                progress(i + 1, len(plan.source.samples))
        for file in (images, labels):  # or a power cut could leave the right sizes, but zeros
            file.flush()
            os.fsync(file.fileno())
    index = {
        "version": FORMAT_VERSION,
        "size_hw": plan.size_hw,
        "space": plan.space.name,
        "native_labels": plan.native_labels,
        "samples": _facts(plan.source),
        "digests": plan.digests,
        "bad": bad,
        **{name: [row[name] for row in rows] for name in rows[0]},
        "bytes": {name: (folder / name).stat().st_size for name in (IMAGES, LABELS)},
    }
    write_atomic(folder / INDEX, json.dumps(index))


def _row(
    label_HW: npt.NDArray[np.uint8], start: int, labelled: bool, space: LabelSpace
) -> dict[str, Any]:
    counts = np.bincount(label_HW.ravel(), minlength=256)
    return {
        "label_shapes": label_HW.shape,
        "label_starts": start,
        "labelled": labelled,
        "histograms": counts[: space.num_classes].tolist(),
    }


def _append(file: BinaryIO, pixels: npt.NDArray[np.uint8]) -> None:
    file.write(np.ascontiguousarray(pixels).reshape(-1).data)


def _decode(sample: Sample, plan: _Plan) -> Decoded | BadSample:
    try:
        return decode(
            sample,
            plan.source,
            size_hw=plan.size_hw,
            space=plan.space,
            table=plan.table,
            native_labels=plan.native_labels,
        )
    except BadSample as error:
        return error


def _ahead(
    work: Callable[[Sample], Decoded | BadSample], samples: Sequence[Sample]
) -> Iterator[Decoded | BadSample]:
    """Map in order with a few threads (PIL lets go of the interpreter lock), a little ahead."""
    waiting: deque[Future[Decoded | BadSample]] = deque()
    with ThreadPoolExecutor(max_workers=_THREADS) as pool:
        try:
            for sample in samples:
                waiting.append(pool.submit(work, sample))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
