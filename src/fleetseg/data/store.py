"""Decoded samples on disk, memory-mapped: cheap to open again and to hand to another process.

A store is a folder: images.u8 (N, H, W, 3), labels.u8 (label maps one after another) and
index.json, which says how large the other two must be. fleetseg.data.cache makes stores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleetseg.data.sample import Image_HWC, Label_HW, Pairs, Sample
from fleetseg.errors import BadSample, DataError

IMAGES, LABELS, INDEX = "images.u8", "labels.u8", "index.json"


@dataclass(frozen=True)
class Store:
    """One split of one source, decoded. It is but a path: what lies there is opened once used."""

    path: Path

    @classmethod
    def load(cls, path: Path) -> Store:
        """Open a store made earlier, in this process or another one.

        Raises:
            DataError: no whole store lies there.
        """
        opened(path)
        return cls(path)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples in the source's order, bad ones included."""
        return opened(self.path).samples

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """SHA-256 of image and label per sample; "" for no label or a file that is not there."""
        return opened(self.path).digests

    @property
    def bad(self) -> dict[int, str]:
        """Index to what is wrong, for samples that cannot be used."""
        return opened(self.path).bad

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which samples have a usable label, shape (N,)."""
        return opened(self.path).labelled

    @property
    def histograms_NC(self) -> npt.NDArray[np.int64]:
        """Valid pixels per sample and class at the stored resolution, shape (N, num_classes)."""
        return opened(self.path).histograms_NC

    def pair(self, index: int) -> tuple[Image_HWC, Label_HW]:
        """Look at one sample without copying it; an unlabelled one has a label all IGNORE.

        Raises:
            BadSample: it could not be read when the store was made.
        """
        store = opened(self.path)
        if index < 0:
            index += len(store.samples)
        if index in store.bad:
            raise BadSample(store.bad[index])
        height, width = store.label_shapes[index]
        start = store.label_starts[index]
        label_HW = store.labels[start : start + height * width].reshape(height, width)
        return store.images_NHWC[index], label_HW


@dataclass(frozen=True)
class View:
    """Some samples of a store, as pairs; crosses to another process as a path and numbers."""

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
        """What is known of each pair, in the same order."""
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
    images_NHWC: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    label_shapes: list[list[int]]
    label_starts: list[int]


@lru_cache(maxsize=64)
def opened(path: Path) -> _Opened:
    """Read the index of a store and map its pixels, once per process and store.

    Raises:
        DataError: no whole store lies there.
    """
    index = read_index(path)
    if index is None:
        raise DataError(
            "no whole store of decoded samples", where=path, cure="Open its source again"
        )
    samples = tuple(Sample(**fields) for fields in index["samples"])
    histograms_NC = np.array(index["histograms"], dtype=np.int64).reshape(len(samples), -1)
    labelled = np.array(index["labelled"], dtype=np.bool_)
    histograms_NC.setflags(write=False)
    labelled.setflags(write=False)
    return _Opened(
        samples=samples,
        digests=tuple((image, label) for image, label in index["digests"]),
        bad={int(i): text for i, text in index["bad"].items()},
        labelled=labelled,
        histograms_NC=histograms_NC,
        images_NHWC=_map(path / IMAGES).reshape(len(samples), *index["size_hw"], 3),
        labels=_map(path / LABELS),
        label_shapes=index["label_shapes"],
        label_starts=index["label_starts"],
    )


def read_index(path: Path) -> dict[str, Any] | None:
    """Return the index of a store, None if the store is not there or not whole."""
    try:
        index: dict[str, Any] = json.loads((path / INDEX).read_text(encoding="utf-8"))
        sizes = {name: (path / name).stat().st_size for name in (IMAGES, LABELS)}
        return index if index["bytes"] == sizes else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _map(path: Path) -> npt.NDArray[np.uint8]:
    if path.stat().st_size == 0:  # every sample is bad; an empty file cannot be mapped
        return np.zeros(0, dtype=np.uint8)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
