"""Decoded samples on disk, memory-mapped: cheap to reopen and to pass to another process.

A store is two folders. One has images.u8 (N, H, W, 3), the other labels.u8 (label maps one after
another, none for an unlabelled sample, compressed or not); each has an index.json, which says how
large the other file must be. Several label folders may belong to one image folder. If images are
read from their own files, images.u8 holds no pixels. fleetseg.data.store.cache makes the folders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Image_HWC, Label_HW, Pairs, Sample
from fleetseg.data.store.image_files import ImageFiles
from fleetseg.data.store.locking import share
from fleetseg.data.store.packing import unpack
from fleetseg.errors import BadSample, DataError

FORMAT_VERSION = 5  # increase it whenever the same files would give other bytes
IMAGES, LABELS, INDEX = "images.u8", "labels.u8", "index.json"


@dataclass(frozen=True)
class Store:
    """One split of one source, decoded. It holds only two paths, which are opened on first use.

    `files` says how to read images that are not stored decoded.
    """

    images: Path
    labels: Path
    files: ImageFiles | None = field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, images: Path, labels: Path, files: ImageFiles | None = None) -> Store:
        """Open an existing store, made by this process or another.

        While it is open, `fleetseg data cache prune` does not remove it.

        Raises:
            DataError: there is no complete store.
        """
        store = cls(images, labels, files)
        _ = store._opened
        return store

    @cached_property
    def _opened(self) -> _Opened:
        return opened(self.images, self.labels)

    def __reduce__(self) -> tuple[type[Store], tuple[Path, Path, ImageFiles | None]]:
        """Send only the two paths, and how to read images, to another process."""
        return Store, (self.images, self.labels, self.files)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples in the source's order, bad ones included."""
        return self._opened.samples

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """SHA-256 of image and label per sample; "" for no label or a missing file."""
        return self._opened.digests

    @property
    def bad(self) -> dict[int, str]:
        """Index of each unusable sample -> what is wrong with its image or label."""
        return self._opened.bad

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which samples are good and have a label, shape (N,)."""
        return self._opened.labelled

    @property
    def histograms_NC(self) -> npt.NDArray[np.int64]:
        """Valid pixels per sample and class at the stored resolution, shape (N, num_classes).

        They are counted in the label, even if the image is bad.
        """
        return self._opened.histograms_NC

    @property
    def native_hw(self) -> tuple[tuple[int, int] | None, ...]:
        """Size of each image before it was resized; None for a bad one."""
        return self._opened.native_hw

    def label_hw(self, index: int) -> tuple[int, int]:
        """Size of the label of a sample as it is stored, (0, 0) if there is none."""
        height, width = self._opened.label_shapes[index]
        return height, width

    def pair(self, index: int) -> tuple[Image_HWC, Label_HW]:
        """Return one sample without copying decoded pixels; a missing label is all IGNORE.

        Raises:
            BadSample: it was unreadable when the store was made, or its image file is now.
            DataError: the store is damaged.
        """
        store = self._opened
        if index < 0:
            index += len(store.samples)
        if index in store.bad:
            raise BadSample(store.bad[index])
        image_HWC = self._image(index)
        size_hw = self.label_hw(index)
        if size_hw == (0, 0):
            return image_HWC, np.full(image_HWC.shape[:2], IGNORE, np.uint8)
        stored = store.labels[store.label_starts[index] : store.label_starts[index + 1]]
        if store.packed:
            return image_HWC, unpack(stored, size_hw, self.labels / LABELS)
        return image_HWC, stored.reshape(size_hw)

    def _image(self, index: int) -> Image_HWC:
        store = self._opened
        if store.images_NHWC is not None:
            image_HWC: Image_HWC = store.images_NHWC[index]
            return image_HWC
        assert self.files is not None, "images are in their files: who reads them?"
        return self.files.read(store.samples[index], store.digests[index][0])


@dataclass(frozen=True)
class View:
    """Some samples of a store, as pairs; sent to another process as paths and numbers."""

    store: Store
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        return self.store.pair(self.indices[index])


@dataclass(frozen=True)
class Picked:
    """Samples of several stores as pairs, in the order given: `places` are (store, index)."""

    stores: tuple[Store, ...]
    places: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int, /) -> tuple[Image_HWC, Label_HW]:
        store, index = self.places[number]
        return self.stores[store].pair(index)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The Sample of each pair, in the same order."""
        of_store = [store.samples for store in self.stores]
        return tuple(of_store[store][index] for store, index in self.places)


@dataclass(frozen=True)
class Pooled:
    """Several collections of pairs, one after another."""

    parts: Sequence[Pairs]

    @cached_property
    def _stops(self) -> npt.NDArray[np.int64]:
        return np.cumsum([len(part) for part in self.parts], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._stops[-1]) if len(self.parts) else 0

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._stops, place, side="right"))
        before = int(self._stops[part - 1]) if part else 0
        return self.parts[part][place - before]


@dataclass(frozen=True)
class _Opened:
    samples: tuple[Sample, ...]
    digests: tuple[tuple[str, str], ...]
    bad: dict[int, str]
    labelled: npt.NDArray[np.bool_]
    histograms_NC: npt.NDArray[np.int64]
    native_hw: tuple[tuple[int, int] | None, ...]
    images_NHWC: npt.NDArray[np.uint8] | None  # None: images stay in their files
    labels: npt.NDArray[np.uint8]
    packed: bool
    label_shapes: list[list[int]]
    label_starts: list[int]  # and the end of the last one
    held: npt.NDArray[np.uint8]  # a map that marks the image folder as in use, even without pixels


@lru_cache(maxsize=64)
def opened(images: Path, labels: Path) -> _Opened:
    """Read the indices of a store and map its pixels, once per process and store.

    Raises:
        DataError: there is no complete store.
    """
    image_pixels, image_index = open_folder(images, IMAGES)
    label_pixels, label_index = open_folder(labels, LABELS)
    samples = tuple(Sample(**fields) for fields in label_index["samples"])
    bad = {int(i): text for i, text in {**label_index["bad"], **image_index["bad"]}.items()}
    histograms_NC = np.array(label_index["histograms"], dtype=np.int64).reshape(len(samples), -1)
    labelled = np.array([height > 0 for height, _ in label_index["label_shapes"]], dtype=np.bool_)
    labelled[list(bad)] = False
    size_hw = image_index["size_hw"]
    histograms_NC.setflags(write=False)
    labelled.setflags(write=False)
    return _Opened(
        samples=samples,
        digests=tuple((image, label) for image, label in label_index["digests"]),
        bad=dict(sorted(bad.items())),
        labelled=labelled,
        histograms_NC=histograms_NC,
        native_hw=tuple(None if hw is None else (hw[0], hw[1]) for hw in image_index["native_hw"]),
        images_NHWC=size_hw and image_pixels.reshape(len(samples), *size_hw, 3),
        labels=label_pixels,
        packed=label_index["packed"],
        label_shapes=label_index["label_shapes"],
        label_starts=[*label_index["label_starts"], label_pixels.size],
        held=image_pixels,
    )


def read_index(folder: Path, pixels: str) -> dict[str, Any] | None:
    """Return the index of a folder of IMAGES or LABELS, None if it is missing or incomplete."""
    index = read_json(folder / INDEX)
    if index is None or index.get("version") != FORMAT_VERSION:
        return None
    try:
        whole = [pixels, (folder / pixels).stat().st_size]
    except OSError:
        return None
    return index if index.get("pixels") == whole else None


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, None if the file is missing or holds something else."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return table if isinstance(table, dict) else None


def open_folder(folder: Path, pixels: str) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Map the pixels of a folder and read its index; the folder is in use while the map exists.

    Raises:
        DataError: the folder is missing or incomplete.
    """
    try:
        with open(folder / pixels, "rb") as file:
            stays = share(file)  # before reading the index: from here on it is not removed
            mapped = np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))
            index = read_index(folder, pixels)
            stays = stays and os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except (OSError, ValueError):  # missing or empty
        index, stays = None, False
    if index is None or not stays:
        raise DataError(
            "no complete store of decoded samples", where=folder, cure="Open its source again"
        )
    with suppress(OSError):  # record the last use; another user's cache may be read-only
        os.utime(folder / INDEX)
    return mapped, index
