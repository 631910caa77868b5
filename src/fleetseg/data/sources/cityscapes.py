"""Cityscapes: leftImg8bit/<split>/<city>/<city>_<drive>_<frame>_leftImg8bit.png and gtFine/.

Cordts et al.: The Cityscapes dataset for semantic urban scene understanding, CVPR 2016,
https://www.cityscapes-dataset.com
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import (
    CITYSCAPES_19,
    CITYSCAPES_ID_TO_TRAIN,
    CITYSCAPES_RAW_IDS,
    IGNORE,
)
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources.coding import LabelCode, train_id_code
from fleetseg.data.sources.indexing import (
    check_not_empty,
    check_split,
    existing_root,
    last_number,
    ordered,
    pair,
    stems,
    subfolders,
)
from fleetseg.data.sources.reading import digest, read_sample

LOOKED_FOR = ("leftImg8bit/<split>/<city>/*_leftImg8bit.png with gtFine/",)
_RAW, _TRAIN = "_gtFine_labelIds", "_gtFine_labelTrainIds"
_RAW_CODE = LabelCode(
    table=CITYSCAPES_ID_TO_TRAIN,
    known=(*range(CITYSCAPES_RAW_IDS), IGNORE),
    expected="raw Cityscapes ids 0-33, or 255",
)
_TRAIN_CODE = train_id_code(
    CITYSCAPES_19, cure="Raw Cityscapes ids belong in a file named *_gtFine_labelIds.png"
)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not Cityscapes."""
    images = root / "leftImg8bit"
    return subfolders(images) if next(images.glob("*/*/*_leftImg8bit.*"), None) else ()


def open_cityscapes(config: SourceConfig) -> Source:
    """Open one split of Cityscapes; city = domain, drive = "<city>_<drive number>".

    Raises:
        ConfigError: no root given.
        DataError: not a Cityscapes folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), LOOKED_FOR)
    images = root / "leftImg8bit" / config.split
    labels = root / "gtFine" / config.split
    pairs = pair(
        stems(images, "_leftImg8bit"),
        _labels(labels) if labels.is_dir() else None,
        image_at=lambda stem: images / f"{stem}_leftImg8bit.png",
        label_at=lambda stem: labels / f"{stem}{_RAW}.png",
    )
    samples = ordered(_sample(config.split, *each) for each in pairs)
    check_not_empty(samples, images)
    return Source("cityscapes", CITYSCAPES_19, samples, _read, digest)


def _labels(folder: Path) -> dict[str, str]:
    # labelIds win: they are the original. labelTrainIds are derived, and where files were scaled
    # down each kind was scaled by itself (the two differ in 77 of 32,768 pixels of one sample).
    return stems(folder, _TRAIN) | stems(folder, _RAW)


_read_raw = partial(read_sample, space=CITYSCAPES_19, code=_RAW_CODE)
_read_train = partial(read_sample, space=CITYSCAPES_19, code=_TRAIN_CODE)


def _read(sample: Sample) -> tuple[Image_HWC, Label_HW | None]:
    derived = sample.label is not None and Path(sample.label).stem.endswith(_TRAIN)
    return _read_train(sample) if derived else _read_raw(sample)


def _sample(split: str, stem: str, image: str, label: str | None) -> Sample:
    city, _, name = stem.rpartition("/")
    drive = name.rpartition("_")[0]
    return Sample(
        id=f"cityscapes/{split}/{stem}",
        dataset="cityscapes",
        split=split,
        image=image,
        label=label,
        domain=city,
        city=city,
        sequence=drive or city,
        frame=last_number(name),
    )
