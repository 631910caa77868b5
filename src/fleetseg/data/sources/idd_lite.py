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
from fleetseg.data.sources.indexing import (
    check_not_empty,
    check_split,
    existing_root,
    last_number,
    ordered,
    pair,
    stems,
    without_siblings,
)
from fleetseg.data.sources.label_encoding import train_id_code
from fleetseg.data.sources.reading import digest, read_sample
from fleetseg.data.sources.walking import on_disk, subfolders
from fleetseg.text import composed

EXPECTED_LAYOUT = ("leftImg8bit/<split>/<drive>/<frame>_image.jpg with gtFine/",)
_INSTANCES = "_inst_label"  # published beside each label; not part of a sample
_CODE = train_id_code(
    IDD_7, cure="IDD-Lite has ids 0-6 and 255: is this a label of full IDD, or of another set?"
)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not IDD-Lite."""
    images = root / "leftImg8bit"
    # Cityscapes has the same folders but other file names.
    return subfolders(images) if images.is_dir() and stems(images, "_image") else ()


def open_idd_lite(config: SourceConfig) -> Source:
    """Open one split of IDD-Lite; drive = folder; city and weather are not recorded.

    Raises:
        ConfigError: no root given.
        DataError: not an IDD-Lite folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    images = on_disk(root / "leftImg8bit" / config.split)
    labels = on_disk(root / "gtFine" / config.split)
    found = stems(images, "_image")
    masks: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    if labels.is_dir():
        masks = stems(labels, "_label", but_not=[_INSTANCES])
        found, masks, notes = without_siblings(found, masks)
    pairs = pair(
        found,
        masks,
        image_at=lambda stem: images / f"{stem}_image.jpg",
        label_at=lambda stem: labels / f"{stem}_label.png",
    )
    samples = ordered(_sample(composed(config.split), *each) for each in pairs)
    check_not_empty(samples, images)
    read = partial(read_sample, space=IDD_7, code=_CODE)
    return Source("idd_lite", IDD_7, samples, read, digest, notes)


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
