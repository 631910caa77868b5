"""IDD-Lite: Indian roads, leftImg8bit/<split>/<drive>/<frame>_image.jpg and gtFine/..._label.png.

Varma et al.: IDD: A dataset for exploring problems of autonomous navigation in unconstrained
environments, WACV 2019, https://idd.insaan.iiit.ac.in
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import IDD_7
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources.coding import train_id_code
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

LOOKED_FOR = ("leftImg8bit/<split>/<drive>/<frame>_image.jpg with gtFine/",)
_CODE = train_id_code(
    IDD_7, cure="IDD-Lite has ids 0-6 and 255: is this a label of full IDD, or of another set?"
)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not IDD-Lite."""
    images = root / "leftImg8bit"
    found = subfolders(images)
    # Cityscapes has the same folders; the file names tell.
    return found if next(images.glob("*/*/*_image.*"), None) else ()


def open_idd_lite(config: SourceConfig) -> Source:
    """Open one split of IDD-Lite; drive = folder; there is no city and no weather in the files.

    Raises:
        ConfigError: no root given.
        DataError: not an IDD-Lite folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), LOOKED_FOR)
    images = root / "leftImg8bit" / config.split
    labels = root / "gtFine" / config.split
    pairs = pair(
        stems(images, "_image"),
        stems(labels, "_label") if labels.is_dir() else None,
        image_at=lambda stem: images / f"{stem}_image.jpg",
        label_at=lambda stem: labels / f"{stem}_label.png",
    )
    samples = ordered(_sample(config.split, *each) for each in pairs)
    check_not_empty(samples, images)
    read = partial(read_sample, space=IDD_7, code=_CODE)
    return Source("idd_lite", IDD_7, samples, read, digest)


def _sample(split: str, stem: str, image: str, label: str | None) -> Sample:
    drive, _, frame = stem.rpartition("/")
    return Sample(
        id=f"idd_lite/{split}/{stem}",
        dataset="idd_lite",
        split=split,
        image=image,
        label=label,
        domain="india",
        sequence=f"idd_{drive}",
        frame=last_number(frame),
    )
