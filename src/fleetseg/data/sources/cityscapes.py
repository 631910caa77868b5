"""Cityscapes: leftImg8bit/<split>/<city>/<city>_<drive>_<frame>_leftImg8bit.png and gtFine/.

The folders may stay where the archives unpack them: leftImg8bit_trainvaltest/leftImg8bit/ and
gtFine_trainvaltest/gtFine/. The frames of train_extra have coarse labels only: gtCoarse/.

Cordts et al.: The Cityscapes dataset for semantic urban scene understanding, CVPR 2016,
https://www.cityscapes-dataset.com
"""

from __future__ import annotations

from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources.cityscapes_ids import RAW, TRAIN, derived_ids, raw_ids, read_either
from fleetseg.data.sources.indexing import (
    check_not_empty,
    check_split,
    existing_root,
    last_number,
    ordered,
    pair,
    stems,
)
from fleetseg.data.sources.reading import digest
from fleetseg.data.sources.walking import on_disk, subfolders
from fleetseg.text import composed

EXPECTED_LAYOUT = ("leftImg8bit/<split>/<city>/*_leftImg8bit.png with gtFine/",)
_IMAGE = "_leftImg8bit"
_COARSE_SPLIT = "train_extra"
_DUMMIES = (
    "The labels of Cityscapes' test split are not public, and the files are dummies: use "
    "split = 'val'; leave any other such sample out"
)
_RAW_CODE = raw_ids(_DUMMIES)
_TRAIN_CODE = derived_ids(_DUMMIES)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not Cityscapes."""
    found: dict[str, dict[str, str]] = {}
    for images in _folders(root, "leftImg8bit"):
        for split in subfolders(images):
            found[split] = found.get(split) or stems(on_disk(images / split), _IMAGE)
    return tuple(sorted(found)) if any(found.values()) else ()


def open_cityscapes(config: SourceConfig) -> Source:
    """Open one split of Cityscapes; city = domain, drive = "<city>_<drive number>".

    Raises:
        ConfigError: no root given.
        DataError: not a Cityscapes folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    images = _split_folder(root, "leftImg8bit", config.split)
    labels, kind = _split_folder(root, "gtFine", config.split), "gtFine"
    if composed(config.split) == _COARSE_SPLIT and not labels.is_dir():
        labels, kind = _split_folder(root, "gtCoarse", config.split), "gtCoarse"
    pairs = pair(
        stems(images, _IMAGE),
        _labels(labels, kind) if labels.is_dir() else None,
        image_at=lambda stem: images / f"{stem}{_IMAGE}.png",
        label_at=lambda stem: labels / f"{stem}_{kind}{RAW}.png",
    )
    samples = ordered(_sample(composed(config.split), *each) for each in pairs)
    check_not_empty(samples, images)
    return Source("cityscapes", CITYSCAPES_19, samples, _read, digest)


def _folders(root: Path, name: str) -> list[Path]:
    """Return the folders of this name, at the root and inside unpacked archives."""
    archives = [root / f for f in subfolders(root) if f.startswith(f"{name}_train")]
    return [f for f in (root / name, *(a / name for a in archives)) if f.is_dir()]


def _split_folder(root: Path, name: str, split: str) -> Path:
    places = [on_disk(folder / split) for folder in _folders(root, name)]
    return next((place for place in places if place.is_dir()), root / name / split)


def _labels(folder: Path, kind: str) -> dict[str, str]:
    # labelIds take precedence: they are the original. labelTrainIds are derived; in downscaled
    # copies each kind was scaled separately (they differ in 77 of 32,768 pixels of one sample).
    return stems(folder, f"_{kind}{TRAIN}") | stems(folder, f"_{kind}{RAW}")


def _read(sample: Sample) -> tuple[Image_HWC, Label_HW | None]:
    return read_either(sample, raw=_RAW_CODE, derived=_TRAIN_CODE)


def _sample(split: str, stem: str, image: str, label: str | None) -> Sample:
    city, _, name = stem.rpartition("/")
    city = city.rpartition("/")[2] or name.partition("_")[0]
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
