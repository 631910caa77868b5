"""BDD100K segmentation: images/10k/<split>/<video>.jpg with labels/sem_seg/masks/<split>/.

Before 2021: seg/images/<split>/ with seg/labels/<split>/<video>_train_id.png. Masks have the 19
train ids of Cityscapes and 255. Weather and time of day are read from the labels' JSON if it is
present: labels/sem_seg/polygons/sem_seg_<split>.json, labels/det_20/det_<split>.json (the 10k
images are not a subset of the latter's 100k but overlap them). Formats: doc/source/download.rst
and format.rst of github.com/bdd100k/bdd100k.

Yu et al.: BDD100K: A diverse driving dataset for heterogeneous multitask learning, CVPR 2020,
https://bdd-data.berkeley.edu
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root
from fleetseg.data.sources.label_encoding import train_id_code
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample
from fleetseg.errors import DataError
from fleetseg.files import read_text

EXPECTED_LAYOUT = (
    "images/10k/<split>/*.jpg with labels/sem_seg/masks/",
    "seg/images/<split>/*.jpg with seg/labels/ (before 2021)",
)
UNKNOWN = "unknown"
"""Domain of an image whose weather and time of day are not recorded."""
_SPLITS = ("train", "val", "test")
_ATTRIBUTES = (
    "labels/sem_seg/polygons/sem_seg_{}.json",
    "labels/det_20/det_{}.json",
)
_CODE = train_id_code(
    CITYSCAPES_19,
    cure="BDD100K's masks have train ids 0-18 and 255: is this a colormap/ or a bitmask?",
)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not BDD100K's segmentation."""
    return tuple(s for s in _SPLITS if _place(root, s).images.is_dir())


def open_bdd100k(config: SourceConfig) -> Source:
    """Open one split; condition = domain = "<weather>, <time of day>", where known.

    Raises:
        ConfigError: no root given.
        DataError: not a BDD100K folder, no such split, no pictures, or damaged JSON.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    conditions = _conditions(root, config.split)
    read = partial(read_sample, space=CITYSCAPES_19, code=_CODE)
    return published_source(
        "bdd100k",
        CITYSCAPES_19,
        config.split,
        [_place(root, config.split)],
        partial(_facts, conditions),
        read,
    )


def _place(root: Path, split: str) -> Place:
    has_labels = split != "test"
    old = root / "seg" / "images" / split
    if old.is_dir():
        labels = root / "seg" / "labels" / split
        return Place(
            old,
            labels if has_labels else None,
            label_endings=("_train_id",),
            image_suffix=".jpg",
        )
    masks = root / "labels" / "sem_seg" / "masks" / split
    images = root / "images" / "10k" / split
    return Place(images, masks if has_labels else None, image_suffix=".jpg")


def _facts(conditions: Mapping[str, str], stem: str) -> Facts:
    # Each image comes from a different video, so grouping by drive is useless: leave it empty.
    condition = conditions.get(stem, "")
    return Facts(domain=condition or UNKNOWN, condition=condition)


def _conditions(root: Path, split: str) -> dict[str, str]:
    """Map the stem of each image whose attributes are known to its weather and time of day."""
    found: dict[str, str] = {}
    for name in reversed(_ATTRIBUTES):
        path = root / name.format(split)
        if path.is_file():
            found |= {stem: text for stem, text in _read_attributes(path) if text}
    return found


def _read_attributes(path: Path) -> list[tuple[str, str]]:
    try:
        content: Any = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(f"not JSON ({error})", where=path, cure="Copy it again") from None
    frames = content.get("frames") if isinstance(content, dict) else content
    if not isinstance(frames, list):
        raise DataError("no list of frames", where=path, expected="BDD100K's labels (Scalabel)")
    return [(Path(str(f.get("name", ""))).stem, _words(f)) for f in frames if isinstance(f, dict)]


def _words(frame: dict[str, Any]) -> str:
    attributes = frame.get("attributes")
    if not isinstance(attributes, dict):
        return ""
    words = (str(attributes.get(key) or "") for key in ("weather", "timeofday"))
    return ", ".join(word for word in words if word not in ("", "undefined"))
