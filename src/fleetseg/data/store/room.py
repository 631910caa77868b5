"""Before decoding, estimate the size of a store and check that its disk has enough space."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from fleetseg.data.sources import evenly_spaced
from fleetseg.data.sources.reading import image_size
from fleetseg.data.store.build import LabelsTo, Plan
from fleetseg.data.store.decoding import Size_HW, file_settings
from fleetseg.data.store.packing import EXPECTED_RATIO
from fleetseg.errors import BadSample, DataError
from fleetseg.text import size_text

_PROBES = 16  # samples whose headers are read for the size of labels


def num_bytes(
    plan: Plan,
    images: bool,
    labels: Sequence[LabelsTo],
    native_hw: tuple[Size_HW | None, ...],
) -> int:
    """Estimate how many bytes of pixels will be written, from the headers of some files.

    `images` says whether images will be written; `native_hw` holds the image sizes if known.
    """
    samples, pixels = plan.source.samples, plan.size_hw[0] * plan.size_hw[1]
    num_labelled = sum(sample.label is not None for sample in samples)
    total = 3 * pixels * len(samples) * (images and not plan.from_files)
    for to in labels:
        mean = _mean_pixels(plan, native_hw) if to.size_hw is None else None
        total += round((mean or pixels) * num_labelled / (EXPECTED_RATIO if to.packed else 1))
    return total


def require_room(cache_dir: Path, needed: int) -> None:
    """Refuse to start if the disk does not have enough space.

    Raises:
        DataError: with the space needed, the space available, and the cure.
    """
    free = shutil.disk_usage(cache_dir).free
    if free < needed:
        raise disk_full(cache_dir, needed, free)


def disk_full(cache_dir: Path, needed: int = 0, free: int | None = None) -> DataError:
    """Build the error for a disk without enough space for the cache."""
    return DataError(
        "no space left on the disk for the cache",
        where=cache_dir,
        got=None if free is None else f"{size_text(free)} free",
        expected=f"about {size_text(needed)}" if needed else None,
        cure="Free some space (fleetseg data cache prune), choose a smaller data.size, "
        "leave images in their files (data.store = 'files'), "
        "or set FLEETSEG_CACHE to a folder on another disk",
    )


def _mean_pixels(plan: Plan, native_hw: tuple[Size_HW | None, ...]) -> float | None:
    sizes = [hw for hw in native_hw if hw is not None]
    if not native_hw and file_settings(plan.source) is not None:
        for sample in evenly_spaced(plan.source.samples, _PROBES):
            with suppress(BadSample):
                sizes.append(image_size(sample.image))
    return float(np.mean([height * width for height, width in sizes])) if sizes else None
