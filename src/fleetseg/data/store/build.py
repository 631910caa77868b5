"""Decode a source into new folders of images and labels.

While a folder is being written, its pixel file is locked, so that no process takes it for a
leftover.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from fleetseg.data.ahead import done_ahead
from fleetseg.data.labels import LabelSpace, Table
from fleetseg.data.sample import Label_HW, Source
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.store.decoding import Decoded, Size_HW, Wanted, decode, image_settings
from fleetseg.data.store.locking import share
from fleetseg.data.store.packing import pack
from fleetseg.data.store.store import FORMAT_VERSION, IMAGES, INDEX, LABELS
from fleetseg.errors import BadSample
from fleetseg.files import write_atomic
from fleetseg.hosts import allowed_cores

_THREADS = min(8, allowed_cores())  # PIL releases the GIL
_AHEAD = 2 * _THREADS  # samples decoded ahead of the one being written


@dataclass(frozen=True)
class Plan:
    """What a store is built from."""

    source: Source
    digests: tuple[tuple[str, str], ...]
    size_hw: Size_HW
    space: LabelSpace
    table: Table  # train ids of the source -> train ids of `space`
    from_files: bool = False  # images stay in their files; only metadata is stored

    @cached_property
    def images_key(self) -> str:
        """Digest of everything that the image pixels depend on, except file locations."""
        rows = [[s.id, d[0]] for s, d in zip(self.source.samples, self.digests, strict=True)]
        settings = image_settings(self.source)
        what = "files" if self.from_files else [IMAGES, self.size_hw]
        return _sha256([FORMAT_VERSION, what, settings, rows])

    def labels_key(self, size_hw: Size_HW | None) -> str:
        """Digest of everything that labels of a size (None: native) and their facts depend on."""
        return _sha256([FORMAT_VERSION, LABELS, size_hw, self._labelling])

    @cached_property
    def _labelling(self) -> str:
        source, space = self.source, self.space
        facts: list[Any] = [space.name, space.classes, source.space.classes, self.table.tolist()]
        code = source.read.keywords.get("code") if isinstance(source.read, partial) else None
        if isinstance(code, LabelEncoding):  # the user's classes.toml may change without the files
            facts.append({f.name: getattr(code, f.name) for f in fields(code)})
        for sample, digest in zip(source.samples, self.digests, strict=True):
            facts.append([{**asdict(sample), "image": "", "label": bool(sample.label)}, digest])
        return _sha256(facts)


@dataclass(frozen=True)
class LabelsTo:
    """A new folder of labels to write."""

    path: Path
    size_hw: Size_HW | None  # None = native
    packed: bool


def _sha256(facts: Any) -> str:
    text = json.dumps(facts, default=lambda array: array.tolist())
    return hashlib.sha256(text.encode()).hexdigest()


def facts_of(source: Source) -> list[dict[str, Any]]:
    """Return the index entry of each sample, including its paths."""
    return [asdict(sample) for sample in source.samples]


@contextmanager
def build(
    plan: Plan,
    images: Path | None,
    labels: Sequence[LabelsTo],
    native_hw: Sequence[Size_HW | None],
    progress: Callable[[int, int], None],
) -> Iterator[None]:
    """Decode all samples once, into a new folder of images and new folders of labels.

    `native_hw` holds the sizes of the images, or is empty if they are unknown. Inside the `with`
    block the folders are complete, and they count as in use until it ends.
    """
    samples, sizes = plan.source.samples, tuple(to.size_hw for to in labels)
    size_hw = None if plan.from_files else plan.size_hw
    wanted = Wanted(plan.source, size_hw, plan.space, plan.table, images is not None, sizes)
    progress(0, len(samples))
    with ExitStack() as stack:
        image_folders = [stack.enter_context(_Folder(f, IMAGES)) for f in [images] if f]
        label_folders = [stack.enter_context(_Folder(to.path, LABELS)) for to in labels]
        jobs = (
            partial(decode, sample, native_hw[i] if native_hw else None, wanted)
            for i, sample in enumerate(samples)
        )
        with done_ahead(jobs, _THREADS, _AHEAD) as decoded:
            for number, result in enumerate(decoded):
                for folder in image_folders:
                    _add_image(folder, number, result, size_hw)
                for folder, label, to in zip(label_folders, result.labels, labels, strict=True):
                    _add_label(folder, number, label, plan.space, packed=to.packed)
                progress(number + 1, len(samples))
        for folder in image_folders:
            folder.finish({**_origin(plan), "size_hw": size_hw})
        facts = {"space": plan.space.name, "samples": facts_of(plan.source)}
        for folder, to in zip(label_folders, labels, strict=True):
            how = {"size_hw": to.size_hw, "packed": to.packed, "digests": plan.digests}
            folder.finish({**_origin(plan), **how, **facts})
        yield


def _origin(plan: Plan) -> dict[str, Any]:
    samples = plan.source.samples
    return {"source": plan.source.name, "split": samples[0].split, "count": len(samples)}


def _add_image(folder: _Folder, number: int, result: Decoded, size_hw: Size_HW | None) -> None:
    """Add an image; without a size, add only its metadata."""
    image = result.image
    if not isinstance(image, np.ndarray):
        folder.bad[number] = str(image)
    folder.row(native_hw=result.native_hw if isinstance(image, np.ndarray) else None)
    if size_hw is not None:
        folder.append(image if isinstance(image, np.ndarray) else np.zeros((*size_hw, 3), np.uint8))


def _add_label(
    folder: _Folder,
    number: int,
    label: Label_HW | BadSample | None,
    space: LabelSpace,
    *,
    packed: bool,
) -> None:
    if isinstance(label, BadSample):
        folder.bad[number] = str(label)
    label_HW = label if isinstance(label, np.ndarray) else np.zeros((0, 0), np.uint8)
    counts = np.bincount(label_HW.ravel(), minlength=256)[: space.num_classes].tolist()
    start = folder.append(pack(label_HW) if packed else label_HW)
    folder.row(label_starts=start, label_shapes=label_HW.shape, histograms=counts)


class _Folder:
    """A new folder of pixels, locked while it is written; writing the index completes it."""

    def __init__(self, path: Path, pixels: str) -> None:
        self.bad: dict[int, str] = {}
        self._path, self._pixels = path, pixels
        self._columns: dict[str, list[Any]] = {}
        path.mkdir()
        self._file = open(path / pixels, "wb")  # noqa: SIM115
        share(self._file)

    def __enter__(self) -> _Folder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def row(self, **cells: Any) -> None:
        """Record metadata of one sample."""
        for name, cell in cells.items():
            self._columns.setdefault(name, []).append(cell)

    def append(self, pixels: npt.NDArray[np.uint8]) -> int:
        """Write the pixels of one sample and return their offset."""
        start = self._file.tell()
        _write(self._file, np.ascontiguousarray(pixels).reshape(-1).data)
        return start

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the index and flush everything to disk."""
        if self._file.tell() == 0:
            _write(self._file, memoryview(b"\0"))  # an empty file cannot be mapped
        self._file.flush()
        os.fsync(self._file.fileno())  # else a power cut could leave zeros of the right size
        whole = {"version": FORMAT_VERSION, "pixels": [self._pixels, self._file.tell()]}
        index = {**whole, **facts, "bad": self.bad, **self._columns}
        write_atomic(self._path / INDEX, json.dumps(index))


def _write(file: BinaryIO, data: memoryview) -> None:
    file.write(data)
