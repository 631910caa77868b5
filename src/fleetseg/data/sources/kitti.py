"""KITTI semantics: training/image_2/<frame>_10.png with training/semantic/, testing/image_2/.

Labels have Cityscapes' raw ids. There are 200 training images, each of a different place, and 200
test images without labels.

Alhaija et al.: Augmented reality meets computer vision, IJCV 2018,
https://www.cvlibs.net/datasets/kitti/eval_semseg.php (data_semantics.zip and its devkit)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.data.sample import Source
from fleetseg.data.sources.cityscapes_ids import raw_ids
from fleetseg.data.sources.indexing import check_split, existing_root, last_number
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample

EXPECTED_LAYOUT = ("training/image_2/<frame>_10.png with training/semantic/",)
_SPLITS = ("training", "testing")
_CODE = raw_ids(cure="KITTI has Cityscapes' raw ids: is this a file of semantic_rgb/ or instance/?")


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not KITTI semantics."""
    # Other KITTI tasks have image_2 too; only this one has semantic labels.
    if not (root / "training" / "semantic").is_dir():
        return ()
    return _openable(root)


def open_kitti(config: SourceConfig) -> Source:
    """Open one split of KITTI semantics; drive, city and weather are not recorded.

    Raises:
        ConfigError: no root given.
        DataError: not a KITTI folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, _openable(root), EXPECTED_LAYOUT)
    labels = root / "training" / "semantic" if config.split == "training" else None
    place = Place(root / config.split / "image_2", labels)
    read = partial(read_sample, space=CITYSCAPES_19, code=_CODE)
    return published_source("kitti", CITYSCAPES_19, config.split, [place], _facts, read)


def _openable(root: Path) -> tuple[str, ...]:
    return tuple(split for split in _SPLITS if (root / split / "image_2").is_dir())


def _facts(stem: str) -> Facts:
    return Facts(domain="kitti", frame=last_number(stem.partition("_")[0]))
