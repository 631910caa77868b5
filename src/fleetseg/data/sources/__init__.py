"""Published on-disk layouts, one module each, opened through one function: `open_source`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from fleetseg.config import SourceConfig
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources import (
    a2d2,
    acdc,
    bdd100k,
    camvid,
    cityscapes,
    crosscity,
    dark_zurich,
    folder,
    gta5,
    idd,
    idd_lite,
    idda,
    kitti,
    mapillary,
    selma,
    wilddash,
)
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
    "idd": idd.open_idd,
    "acdc": acdc.open_acdc,
    "dark_zurich": dark_zurich.open_dark_zurich,
    "bdd100k": bdd100k.open_bdd100k,
    "mapillary": mapillary.open_mapillary,
    "crosscity": crosscity.open_crosscity,
    "kitti": kitti.open_kitti,
    "wilddash": wilddash.open_wilddash,
    "a2d2": a2d2.open_a2d2,
    "gta5": gta5.open_gta5,
    "idda": idda.open_idda,
    "selma": selma.open_selma,
    "folder": folder.open_folder,
}

# Kinds on disk: how to find their splits, and what their layout looks like. The order is that of
# detection: layouts with the most distinctive names first.
SPLITS: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "idd": idd.splits,  # before Cityscapes, which has the same folders: IDD's drives are numbers
    "cityscapes": cityscapes.splits,
    "idd_lite": idd_lite.splits,
    "camvid": camvid.splits,
    "acdc": acdc.splits,
    "dark_zurich": dark_zurich.splits,
    "bdd100k": bdd100k.splits,
    "mapillary": mapillary.splits,
    "crosscity": crosscity.splits,
    "kitti": kitti.splits,
    "a2d2": a2d2.splits,
    "idda": idda.splits,
    "selma": selma.splits,
    "gta5": gta5.splits,
    "wilddash": wilddash.splits,
    "folder": folder.splits,
}
LAYOUTS: dict[str, tuple[str, ...]] = {
    "cityscapes": cityscapes.EXPECTED_LAYOUT,
    "idd_lite": idd_lite.EXPECTED_LAYOUT,
    "idd": idd.EXPECTED_LAYOUT,
    "camvid": camvid.EXPECTED_LAYOUT,
    "acdc": acdc.EXPECTED_LAYOUT,
    "dark_zurich": dark_zurich.EXPECTED_LAYOUT,
    "bdd100k": bdd100k.EXPECTED_LAYOUT,
    "mapillary": mapillary.EXPECTED_LAYOUT,
    "crosscity": crosscity.EXPECTED_LAYOUT,
    "kitti": kitti.EXPECTED_LAYOUT,
    "a2d2": a2d2.EXPECTED_LAYOUT,
    "idda": idda.EXPECTED_LAYOUT,
    "selma": selma.EXPECTED_LAYOUT,
    "gta5": gta5.EXPECTED_LAYOUT,
    "wilddash": wilddash.EXPECTED_LAYOUT,
    "folder": folder.EXPECTED_LAYOUT,
}


def open_source(config: SourceConfig) -> Source:
    """Open a data set: index its samples without decoding, then apply the filters of the config.

    Raises:
        ConfigError: unknown kind, or no root for a kind that needs one.
        DataError: wrong or empty folder, or an unknown split, drive, city, condition or vehicle.
    """
    if config.kind not in SOURCES:
        raise unknown_name("source kind", config.kind, SOURCES)
    source = SOURCES[config.kind](config)
    samples = _kept(source.samples, config)
    return dataclasses.replace(source, samples=evenly_spaced(samples, config.limit))


def evenly_spaced(samples: Sequence[T], limit: int) -> tuple[T, ...]:
    """Return `limit` evenly spaced samples, or all if limit is 0 or exceeds their number.

    The first of each of `limit` equal stretches is taken: 3 of 0..8 are 0, 3 and 6.
    """
    count = len(samples)
    if limit == 0 or limit >= count:
        return tuple(samples)
    return tuple(samples[i * count // limit] for i in range(limit))


def _kept(samples: Sequence[Sample], config: SourceConfig) -> Sequence[Sample]:
    """Apply the filters by drive, city, condition and vehicle."""
    for option, fact, noun in _FILTERS:
        names = getattr(config, option)
        # The synthetic source renders only the cities and conditions it is asked for.
        if names and not (config.kind == "synthetic" and fact in ("city", "condition")):
            samples = _having(samples, names, config, option=option, fact=fact, noun=noun)
    return samples


_FILTERS = (
    ("sequences", "sequence", "drive"),
    ("cities", "city", "city"),
    ("conditions", "condition", "condition"),
    ("vehicles", "vehicle", "vehicle"),
)
"""(option of a source, attribute of a sample, its name in errors)."""


def _having(
    samples: Sequence[Sample],
    names: Sequence[str],
    config: SourceConfig,
    *,
    option: str,
    fact: str,
    noun: str,
) -> Sequence[Sample]:
    known = sorted({str(getattr(sample, fact)) for sample in samples} - {""})
    wanted = {composed(name) for name in names}
    for name in sorted(wanted):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise DataError(
                f"no {noun} '{name}' in split '{config.split}' of {config.kind}",
                where=config.root or None,
                expected=f"{option} from: {listing(known, 10) if known else 'none is known'}",
                cure=f"Did you mean '{near[0]}'?" if near else None,
            )
    return [sample for sample in samples if getattr(sample, fact) in wanted]
