"""CrossCity (NTHU): <City>/Images/Train/<frame>.jpg without labels, <City>/Images/Test/ with some.

Test labels lie in <City>/Labels/Test/<frame>_eval.png and have Cityscapes' raw ids. 13 of the
classes are scored, in the order of LADD's table (src/dataset/target/crosscity.py of
github.com/Erosinho13/LADD); the others are void. Cities: Rio, Rome, Taipei, Tokyo.

Chen et al.: No more discrimination: cross city adaptation of road scene segmenters, ICCV 2017,
https://yihsinchen.github.io/segmentation_adaptation_dataset/
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import (
    CITYSCAPES_19,
    CITYSCAPES_ID_TO_TRAIN,
    CITYSCAPES_RAW_IDS,
    CROSSCITY_13,
    IGNORE,
    make_table,
    projection,
)
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root, last_number
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample
from fleetseg.data.sources.walking import on_disk, subfolders

EXPECTED_LAYOUT = ("<City>/Images/Train/<frame>.jpg, <City>/Images/Test/ with <City>/Labels/Test/",)
_SPLITS = ("Train", "Test")
_RAW_TO_13 = projection(CITYSCAPES_19, CROSSCITY_13)[CITYSCAPES_ID_TO_TRAIN]
_CODE = LabelEncoding(
    table=make_table(dict(enumerate(_RAW_TO_13.tolist()))),
    known=(*range(CITYSCAPES_RAW_IDS), IGNORE),
    expected="raw Cityscapes ids 0-33, or 255",
    cure="CrossCity's evaluation labels are the files named <frame>_eval.png",
)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not CrossCity."""
    cities = _cities(root)
    return tuple(s for s in _SPLITS if any((city / "Images" / s).is_dir() for city in cities))


def open_crosscity(config: SourceConfig) -> Source:
    """Open one split of all cities; city = domain, and there are no drives.

    Raises:
        ConfigError: no root given.
        DataError: not a CrossCity folder, no such split, or no pictures.
    """
    root = existing_root(config)
    split = config.split
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    places = [
        Place(
            city / "Images" / split,
            city / "Labels" / split if split == "Test" else None,
            label_endings=("_eval",),
            prefix=f"{city.name}/",
        )
        for city in _cities(root)
        if (city / "Images" / split).is_dir()
    ]
    read = partial(read_sample, space=CROSSCITY_13, code=_CODE)
    return published_source("crosscity", CROSSCITY_13, split, places, _facts, read)


def _cities(root: Path) -> list[Path]:
    folders = (on_disk(root / name) for name in subfolders(root))
    return [f for f in folders if any((f / "Images" / s).is_dir() for s in _SPLITS)]


def _facts(stem: str) -> Facts:
    city, _, name = stem.partition("/")
    panorama = name.split("_")[1] if name.count("_") else name
    return Facts(domain=city, city=city, frame=last_number(panorama))
