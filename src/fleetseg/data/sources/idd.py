"""IDD Segmentation: leftImg8bit/<split>/<drive>/<frame>_leftImg8bit.png with gtFine/.

Labels are published as polygons. The authors' preperation/createLabels.py (github.com/AutoNUE/
public-code) converts them to label files: --id-type level3Id writes *_gtFine_labellevel3Ids.png
with 26 classes, read as "idd26"; level1Id writes *_gtFine_labellevel1Ids.png, read as "idd7". If
both exist, level 3 is read. Classes: helpers/anue_labels.py there.

Varma et al.: IDD: A dataset for exploring problems of autonomous navigation in unconstrained
environments, WACV 2019, https://idd.insaan.iiit.ac.in
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import IDD_7, IDD_26, LabelSpace
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root, last_number, stems
from fleetseg.data.sources.label_encoding import train_id_code
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample
from fleetseg.data.sources.walking import on_disk, subfolders

EXPECTED_LAYOUT = (
    "leftImg8bit/<split>/<drive>/<frame>_leftImg8bit.png with "
    "gtFine/<split>/<drive>/<frame>_gtFine_labellevel3Ids.png",
)
_IMAGE = "_leftImg8bit"
_LEVEL_3, _LEVEL_1 = "_gtFine_labellevel3Ids", "_gtFine_labellevel1Ids"
_SPACE_OF: dict[str, LabelSpace] = {_LEVEL_3: IDD_26, _LEVEL_1: IDD_7}
_POLYGONS = "_gtFine_polygons.json"


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not IDD."""
    images = root / "leftImg8bit"
    found = {split: stems(on_disk(images / split), _IMAGE) for split in subfolders(images)}
    # Cityscapes has the same folders and endings, but its drive folders are named after cities.
    drives = {stem.partition("/")[0] for frames in found.values() for stem in frames}
    return tuple(sorted(found)) if drives and all(drive.isdigit() for drive in drives) else ()


def open_idd(config: SourceConfig) -> Source:
    """Open one split of IDD; drive = folder; city and weather are not recorded.

    Raises:
        ConfigError: no root given.
        DataError: not an IDD folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    labels = on_disk(root / "gtFine" / config.split)
    level = next((k for k in _SPACE_OF if labels.is_dir() and stems(labels, k)), None)
    space = _SPACE_OF[level or _LEVEL_3]
    place = Place(
        on_disk(root / "leftImg8bit" / config.split),
        labels if level or not (labels.is_dir() or config.split == "test") else None,
        image_ending=_IMAGE,
        label_endings=(level or _LEVEL_3,),
    )
    code = train_id_code(space, cure=f"*{level}.png has {space.num_classes} ids and 255")
    read = partial(read_sample, space=space, code=code)
    notes = () if level else _without_labels(labels)
    return published_source("idd", space, config.split, [place], _facts, read, notes)


def _without_labels(labels: Path) -> tuple[str, ...]:
    if not labels.is_dir() or not any(labels.glob(f"*/*{_POLYGONS}")):
        return ()
    return (
        f"{labels} has polygons but no label files, so all images are unlabelled: make the files "
        "with createLabels.py of AutoNUE/public-code, --id-type level3Id",
    )


def _facts(stem: str) -> Facts:
    drive, _, frame = stem.partition("/")
    return Facts(domain="india", sequence=f"idd_{drive}", frame=last_number(frame))
