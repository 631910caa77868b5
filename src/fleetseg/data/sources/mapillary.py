"""Mapillary Vistas, labels of v1.2: training/images/<id>.jpg with training/labels/<id>.png.

The v2.0 package has the same labels under training/v1.2/labels/. They are palette images with the
ids of 66 classes, mapped to Cityscapes' 19 by LADD's table (src/dataset/target/mapillary.py of
github.com/Erosinho13/LADD): kerbs are sidewalk, lane markings and potholes road, street lights and
all posts pole, sand terrain; crosswalks, parking and other classes that Cityscapes lacks are void.
The 124 classes of v2.0 are not read: no table that could be checked was available for them.

Neuhold et al.: The Mapillary Vistas dataset for semantic understanding of street scenes, ICCV 2017,
https://www.mapillary.com/dataset/vistas
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19, IGNORE, make_table
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample

EXPECTED_LAYOUT = ("training/images/<id>.jpg with training/labels/ or training/v1.2/labels/",)
_SPLITS = ("training", "validation", "testing")
_CLASSES = 66
_TO_TRAIN = make_table({
    2: 1, 3: 4, 6: 3, 7: 1, 9: 1, 11: 1, 13: 0, 14: 0, 15: 1, 17: 2, 19: 11, 20: 12, 21: 12, 22: 12,
    24: 0, 26: 9, 27: 10, 29: 9, 30: 8, 43: 0, 44: 5, 45: 5, 46: 5, 47: 5, 48: 6, 50: 7, 52: 18,
    54: 15, 55: 13, 57: 17, 58: 16, 61: 14,
})  # fmt: skip
"""Vistas v1.2 ids -> cityscapes19."""
_CODE = LabelEncoding(
    table=_TO_TRAIN,
    known=(*range(_CLASSES), IGNORE),
    expected="ids 0-65 of Vistas v1.2",
    cure="Is this a label of v2.0, which has 124 classes? Use those of v1.2",
)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not Mapillary Vistas."""
    if not any(_labels(root, split).is_dir() for split in _SPLITS[:2]):
        return ()
    return _openable(root)


def open_mapillary(config: SourceConfig) -> Source:
    """Open one split of Mapillary Vistas; drive, city and weather are not recorded.

    Raises:
        ConfigError: no root given.
        DataError: not a Vistas folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, _openable(root), EXPECTED_LAYOUT)
    labels = None if config.split == "testing" else _labels(root, config.split)
    place = Place(root / config.split / "images", labels, image_suffix=".jpg")
    read = partial(read_sample, space=CITYSCAPES_19, code=_CODE)
    return published_source("mapillary", CITYSCAPES_19, config.split, [place], _facts, read)


def _openable(root: Path) -> tuple[str, ...]:
    return tuple(split for split in _SPLITS if (root / split / "images").is_dir())


def _labels(root: Path, split: str) -> Path:
    of_v2 = root / split / "v1.2" / "labels"
    return of_v2 if of_v2.is_dir() else root / split / "labels"


def _facts(stem: str) -> Facts:
    return Facts(domain="mapillary")
