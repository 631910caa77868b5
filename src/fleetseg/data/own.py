"""A user's own collections of samples: checked once, then read, converted and resized lazily.

A collection is anything with a length and an index: a list, a `torch.utils.data.Dataset`. A sample
is (image, label), or a mapping with named entries. Nothing is kept in memory here.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset

from fleetseg.data.arrays import ROUNDING, Raw, raw_image, to_ids, to_rgb
from fleetseg.data.labels import IGNORE, LabelSpace
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.store.decoding import resized_image, resized_label
from fleetseg.errors import ConfigError, DataError, FleetSegError
from fleetseg.text import composed

IMAGE_KEYS = ("image", "img")
LABEL_KEYS = ("label", "labels", "mask", "target", "annotation")
"""Accepted keys of samples that are mappings."""

Collections = Mapping[str, Any] | Mapping[int, Any]
"""Collections of samples by name or number."""

_DARK = 1  # highest value of an image in which nothing can be seen


@dataclass(frozen=True)
class OwnPairs:
    """Some samples of a collection as (image_HWC, label_HW) pairs at working resolution.

    Batches are loaded in several threads, but a user's collection need not be thread-safe (it may
    seek in a file, say), so a lock guards it: it is asked for one sample at a time.
    """

    samples: Any
    owner: str  # of the samples, for errors
    num_classes: int
    size_hw: tuple[int, int]
    unit_range: bool  # floating-point images range to 1, not to 255
    numbers: tuple[int, ...]  # of the samples that have a labelled pixel
    native_labels: bool = False  # labels keep their own resolution
    _asking: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def __reduce__(self) -> tuple[type[OwnPairs], tuple[Any, ...]]:
        """Send everything but the lock to another process."""
        return OwnPairs, tuple(getattr(self, f.name) for f in fields(self) if f.name != "_asking")

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> tuple[Image_HWC, Label_HW]:
        number = self.numbers[index]
        with self._asking:
            raw_HWC, label_HW = _read(self.samples, number, self.owner, self.num_classes)
        image_HWC = resized_image(to_rgb(raw_HWC, unit_range=self.unit_range), self.size_hw)
        return image_HWC, label_HW if self.native_labels else resized_label(label_HW, self.size_hw)


@dataclass
class Looked:
    """What `look_over` found in the samples of a collection."""

    histogram_C: npt.NDArray[np.int64]  # labelled pixels at working resolution
    native_pixels: int = 0  # labelled pixels at the labels' own resolution
    void_pixels: int = 0  # the others
    numbers: list[int] = field(default_factory=list)  # of samples with a labelled pixel
    void: list[int] = field(default_factory=list)  # of samples without one
    sizes_hw: set[tuple[int, int]] = field(default_factory=set)
    peak: float = 0.0  # largest number in an integer image
    # Sample numbers of the floating-point images that exceed 1, and of those that do not.
    to_255: list[int] = field(default_factory=list)
    to_1: list[int] = field(default_factory=list)
    steady: bool = True  # the first sample was the same when read twice
    digests: list[tuple[bytes, bytes]] = field(default_factory=list)  # of image and label

    @property
    def sha256(self) -> str:
        """Digest of all samples; empty if they differ each time they are read."""
        hasher = hashlib.sha256(b"".join(part for pair in self.digests for part in pair))
        return hasher.hexdigest() if self.steady else ""


def look_over(
    samples: Any,
    owner: str,
    space: LabelSpace,
    size_hw: tuple[int, int],
    progress: Callable[[int, int], None] | None = None,
) -> Looked:
    """Read every sample of a collection once and refuse unusable ones.

    Raises:
        DataError: names the owner, the sample, the value found and expected, and the cure.
    """
    length = _length(samples, owner)
    looked = Looked(np.zeros(space.num_classes, dtype=np.int64))
    for number in range(length):
        raw_HWC, label_HW = _read(samples, number, owner, space.num_classes)
        _note_image(looked, number, raw_HWC, owner)
        _note_label(looked, number, label_HW, size_hw)
        looked.digests.append((_digest(raw_HWC), _digest(label_HW)))
        if number == 0:
            again_HWC, again_HW = _read(samples, 0, owner, space.num_classes)
            looked.steady = np.array_equal(raw_HWC, again_HWC) and np.array_equal(
                label_HW, again_HW
            )
        if progress is not None:
            progress(number + 1, length)
    if looked.to_1 and looked.to_255:
        raise DataError(
            "floating-point images in two ranges",
            where=owner,
            got=f"sample {looked.to_1[0]} is at most 1, sample {looked.to_255[0]} exceeds 1",
            expected="all in [0, 1], or all in [0, 255]",
            cure="Convert them to one range, or to uint8",
        )
    return looked


def pairs_of(
    samples: Any,
    owner: str,
    space: LabelSpace,
    size_hw: tuple[int, int],
    looked: Looked,
    *,
    native_labels: bool,
) -> OwnPairs:
    """Make pairs from a collection that `look_over` has checked."""
    return OwnPairs(
        samples=samples,
        owner=owner,
        num_classes=space.num_classes,
        size_hw=size_hw,
        unit_range=not looked.to_255,
        numbers=tuple(looked.numbers),
        native_labels=native_labels,
    )


def notes_on(looked: Looked, owner: str, size_hw: tuple[int, int]) -> Iterator[str]:
    """Note what is legal in a collection but perhaps not intended."""
    if looked.void:
        some = ", ".join(map(str, looked.void[:5])) + (" ..." if len(looked.void) > 5 else "")
        yield f"bad sample skipped: {owner}, sample {some}: every pixel of the label is void"
    if not looked.steady:
        yield (
            f"{owner}: sample 0 differs each time it is read, so runs are not reproducible; leave "
            "augmentation to [training]"
        )
    if 0 < looked.peak <= _DARK:
        yield f"{owner}: no image has a value above {_DARK} of 255: were they scaled to [0, 1]?"
    found = np.flatnonzero(looked.histogram_C).tolist()
    if found == [0] and looked.void_pixels and len(looked.histogram_C) > 1:
        yield (
            f"{owner}: labels contain only 0 and {IGNORE}, which is void; if {IGNORE} means "
            "foreground, write 1 instead"
        )
    others = sorted(looked.sizes_hw - {size_hw})
    if others:
        height, width = others[0]
        squashed = any(abs(h * size_hw[1] / (w * size_hw[0]) - 1) > 0.02 for h, w in others)
        yield (
            f"{owner}: images are resized to data.size, {size_hw[1]}x{size_hw[0]} from "
            f"{width}x{height}" + ("; that changes their aspect ratio" if squashed else "")
        )


def named(collections: object, what: str, argument: str) -> dict[str, Any]:
    """Return the collections of a mapping by name; integer keys become strings.

    Raises:
        ConfigError: not a mapping, or names that are invalid or not distinct.
    """
    if not isinstance(collections, Mapping):
        raise ConfigError(
            f"{argument}= takes a mapping from the name of each {what} to its samples",
            got=type(collections).__name__,
            cure="Use dict(enumerate(...)) to number the items of a sequence",
        )
    by_name: dict[str, Any] = {}
    written: dict[str, str] = {}  # composed name -> as it was given
    for key, samples in collections.items():
        whole = isinstance(key, int | np.integer) and not isinstance(key, bool)
        name = str(key)
        if not (whole or isinstance(key, str)) or not name or not name.isprintable():
            raise ConfigError(
                f"unusable name of {'an' if what[0] in 'aeiou' else 'a'} {what}",
                where=f"{argument}=",
                got=repr(key),
                expected="printable text, or a whole number",
            )
        if (same := composed(name)) in written:
            raise ConfigError(
                f"duplicate name in {argument}=", got=f"'{written[same]}' and {key!r}"
            )
        by_name[name], written[same] = samples, name
    return by_name


def _length(samples: Any, owner: str) -> int:
    """Return the length of an indexable collection; refuse anything else."""
    cure = "Give a list of (image, label), or a torch Dataset with __len__ and __getitem__"
    if isinstance(samples, DataLoader):
        cure = "Give the data set that it loads: loader.dataset"
    elif isinstance(samples, str | Path):
        cure = "For samples on disk, use [[data.sources]] with kind = 'folder'"
    elif isinstance(samples, Mapping):
        cure = "Give list(samples.values())"
    elif isinstance(samples, IterableDataset) or not hasattr(samples, "__getitem__"):
        cure = "Give list(samples), or a data set that can be indexed"
    elif hasattr(samples, "__len__"):
        try:
            length = len(samples)
        except (TypeError, NotImplementedError):
            length = -1
        except Exception as error:  # of the user's own, as where samples are read
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"cannot determine its length ({reason})", where=owner) from error
        if length > 0:
            return length
        if length == 0:
            raise DataError("there are no samples", where=owner, cure="Leave it out")
    raise DataError(
        "not a collection of samples",
        where=owner,
        got=type(samples).__name__,
        expected="a collection with __len__ and __getitem__",
        cure=cure,
    )


def _read(samples: Any, number: int, owner: str, num_classes: int) -> tuple[Raw, Label_HW]:
    where = f"{owner}, sample {number}"
    try:
        sample = samples[number]
    except (FleetSegError, MemoryError):
        raise
    except Exception as error:
        # A user's data set may raise anything; what matters is which sample failed.
        raise DataError(f"reading it failed ({type(error).__name__}: {error})", where=where) from (
            error
        )
    image, label = _parts(sample, where)
    label_HW = to_ids(label, num_classes, where)
    return raw_image(image, label_HW.shape, where), label_HW


def _parts(sample: object, where: str) -> tuple[object, object]:
    if isinstance(sample, Mapping):
        images = [key for key in IMAGE_KEYS if key in sample]
        labels = [key for key in LABEL_KEYS if key in sample]
        if len(images) == len(labels) == 1:
            return sample[images[0]], sample[labels[0]]
        raise DataError(
            "image and label cannot be told apart",
            where=where,
            got=f"keys {sorted(map(str, sample))}",
            expected=f"one of {', '.join(IMAGE_KEYS)} and one of {', '.join(LABEL_KEYS)}",
        )
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return sample[0], sample[1]
    if isinstance(sample, tuple | list):
        got = f"{len(sample)} parts"
    else:
        got = f"{type(sample).__name__} {tuple(getattr(sample, 'shape', ()))}"
    raise DataError(
        "not a pair of image and label",
        where=where,
        got=got,
        expected="(image, label)",
        cure="Pair two arrays: list(zip(images, labels))"
        if isinstance(sample, np.ndarray | torch.Tensor)
        else None,
    )


def _digest(array: Raw) -> bytes:
    hasher = hashlib.blake2b(f"{array.dtype} {array.shape}".encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(array).data)
    return hasher.digest()


def _note_image(looked: Looked, number: int, raw_HWC: Raw, owner: str) -> None:
    looked.sizes_hw.add((raw_HWC.shape[0], raw_HWC.shape[1]))
    peak = float(raw_HWC.max())
    if raw_HWC.dtype.kind != "f":
        looked.peak = max(looked.peak, 255.0 if raw_HWC.dtype == np.bool_ else peak)
    elif peak > 1 + ROUNDING:
        if peak < 2:
            raise DataError(
                "a floating-point image that is neither in [0, 1] nor in [0, 255]",
                where=f"{owner}, sample {number}",
                got=f"up to {peak:g}",
                cure="Clip it to [0, 1], or give uint8",
            )
        looked.to_255.append(number)
    elif peak > 0:  # an all-zero image fits either range
        looked.to_1.append(number)


def _note_label(looked: Looked, number: int, label_HW: Label_HW, size_hw: tuple[int, int]) -> None:
    num_classes = len(looked.histogram_C)
    native_pixels = int((label_HW != IGNORE).sum())
    looked.void_pixels += label_HW.size - native_pixels
    if native_pixels == 0:
        looked.void.append(number)
        return
    counts = np.bincount(resized_label(label_HW, size_hw).ravel(), minlength=256)
    looked.numbers.append(number)
    looked.histogram_C += counts[:num_classes]
    looked.native_pixels += native_pixels
