"""WildDash 2, semantic labels of wd_public_02: images/<frame>.jpg with labels/<frame>.png.

Ids 0-33 are Cityscapes'. Beyond these, vans are cars, pickups trucks, road markings road, and
billboards and street lights void, as in the authors' wd2_unified_label_policy.json (github.com/
ozendelait/wilddash_scripts). The later package holds only panoptic labels, which are not read; its
pano2sem.py converts them to semantic labels.

Zendel et al.: Unifying panoptic segmentation for autonomous driving, CVPR 2022,
https://wilddash.cc
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19, CITYSCAPES_ID_TO_TRAIN, IGNORE, make_table
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample

EXPECTED_LAYOUT = ("images/<frame>.jpg with labels/ and wilddash_public.json or panoptic.json",)
_TELLING = ("wilddash_public.json", "panoptic.json")
_PICKUP, _VAN, _BILLBOARD, _STREET_LIGHT, _ROAD_MARKING = range(34, 39)
_TO_TRAIN = make_table(
    dict(enumerate(CITYSCAPES_ID_TO_TRAIN[:_PICKUP].tolist()))
    | {
        _PICKUP: CITYSCAPES_19.classes.index("truck"),
        _VAN: CITYSCAPES_19.classes.index("car"),
        _ROAD_MARKING: CITYSCAPES_19.classes.index("road"),
    }
)
_CODE = LabelEncoding(
    table=_TO_TRAIN,
    known=(*range(_ROAD_MARKING + 1), IGNORE),
    expected="ids 0-38 of WildDash 2",
    cure="Is this a panoptic label? Convert it to a semantic one with WildDash's pano2sem.py",
)


def splits(root: Path) -> tuple[str, ...]:
    """Return ("train",), as one set is published; () if it is not WildDash."""
    # Other data sets have images/ and labels/ too; the JSON beside them identifies WildDash.
    told = any((root / name).is_file() for name in _TELLING)
    return _openable(root) if told else ()


def open_wilddash(config: SourceConfig) -> Source:
    """Open WildDash 2; all of it is split "train".

    Raises:
        ConfigError: no root given.
        DataError: not a WildDash folder, another split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, _openable(root), EXPECTED_LAYOUT)
    place = Place(root / "images", root / "labels", image_suffix=".jpg")
    read = partial(read_sample, space=CITYSCAPES_19, code=_CODE)
    return published_source("wilddash", CITYSCAPES_19, config.split, [place], _facts, read)


def _openable(root: Path) -> tuple[str, ...]:
    return ("train",) if (root / "images").is_dir() else ()


def _facts(stem: str) -> Facts:
    return Facts(domain="wilddash")
