"""Published on-disk layouts, one file each, behind one function: `open_source`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from fleetseg.config import SourceConfig
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources import camvid, cityscapes, folder, idd_lite
from fleetseg.errors import DataError, unknown_name
from fleetseg.text import composed, listing

T = TypeVar("T")


def _open_synthetic(config: SourceConfig) -> Source:
    from fleetseg.data.synthetic.source import open_synthetic

    return open_synthetic(config)


SOURCES: dict[str, Callable[[SourceConfig], Source]] = {
    "synthetic": _open_synthetic,
    "camvid": camvid.open_camvid,
    "cityscapes": cityscapes.open_cityscapes,
    "idd_lite": idd_lite.open_idd_lite,
    "folder": folder.open_folder,
}

# Kinds that lie on disk: how to find their splits, and what their layout looks like. In the order
# of a guess: the layouts with the most telling names first.
SPLITS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "cityscapes": cityscapes.splits,
    "idd_lite": idd_lite.splits,
    "camvid": camvid.splits,
    "folder": folder.splits,
}
LAYOUTS: dict[str, tuple[str, ...]] = {
    "cityscapes": cityscapes.EXPECTED_LAYOUT,
    "idd_lite": idd_lite.EXPECTED_LAYOUT,
    "camvid": camvid.EXPECTED_LAYOUT,
    "folder": folder.EXPECTED_LAYOUT,
}


def open_source(config: SourceConfig) -> Source:
    """Open a data set: index its samples, decode nothing, then apply the filters of the config.

    Raises:
        ConfigError: unknown kind, or no root for a kind that needs one.
        DataError: wrong or empty folder, no such split or drive.
    """
    if config.kind not in SOURCES:
        raise unknown_name("source kind", config.kind, SOURCES)
    source = SOURCES[config.kind](config)
    samples = _of_sequences(source.samples, config)
    return dataclasses.replace(source, samples=evenly_spaced(samples, config.limit))


def evenly_spaced(samples: Sequence[T], limit: int) -> tuple[T, ...]:
    """Return `limit` samples at even distances, all of them if limit is 0 or beyond their number.

    The first of each of `limit` equal stretches is taken: 3 of 0..8 are 0, 3 and 6.
    """
    count = len(samples)
    if limit == 0 or limit >= count:
        return tuple(samples)
    return tuple(samples[i * count // limit] for i in range(limit))


def _of_sequences(samples: Sequence[Sample], config: SourceConfig) -> Sequence[Sample]:
    if not config.sequences:
        return samples
    known = sorted({sample.sequence for sample in samples})
    wanted = {composed(name) for name in config.sequences}
    for name in sorted(wanted):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise DataError(
                f"no drive '{name}' in split '{config.split}' of {config.kind}",
                where=config.root or None,
                expected=f"sequences from: {listing(known, 10)}",
                cure=f"Did you mean '{near[0]}'?" if near else None,
            )
    return [sample for sample in samples if sample.sequence in wanted]
