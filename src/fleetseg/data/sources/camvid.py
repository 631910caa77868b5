"""CamVid: four drives through Cambridge, in its three published layouts.

* SegNet: train/ trainannot/ val/ valannot/ test/ testannot/, ids 0-10 and 11 = void.
* Kaggle: train/ train_labels/ ..., 32 colours, labels named <frame>_L.png.
* original: 701_StillsRaw_full/ LabeledApproved_full/, 32 colours, <frame>_L.png, no split.

Brostow, Fauqueur, Cipolla: Semantic object classes in video, PRL 2009,
http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import (
    CAMVID_11,
    CAMVID_32_COLOURS,
    CAMVID_32_TO_TRAIN,
    CAMVID_SEGNET_TO_TRAIN,
    CAMVID_SEGNET_VOID,
    IGNORE,
)
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
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.reading import digest, read_sample
from fleetseg.data.sources.walking import subfolders

EXPECTED_LAYOUT = (
    "train/ with trainannot/ (SegNet)",
    "train/ with train_labels/ (Kaggle)",
    "701_StillsRaw_full/ with LabeledApproved_full/ (original)",
)
_SPLITS = ("train", "val", "test")
_RAW, _APPROVED = "701_StillsRaw_full", "LabeledApproved_full"

# Endings of other files beside frames in some copies: colour labels, and palette-index labels.
_SIBLINGS = ("_L", "_P")

_IDS = LabelEncoding(
    table=CAMVID_SEGNET_TO_TRAIN,
    known=(*range(CAMVID_SEGNET_VOID + 1), IGNORE),
    expected="0-10, or 11 or 255 to ignore",
    colours=(*CAMVID_11.colours, (0, 0, 0)),
    colour_ids=(*range(CAMVID_11.num_classes), IGNORE),
    cure="Is this label from another data set, or colour-coded? SegNet's CamVid has ids 0-11",
)
_COLOURS = LabelEncoding(
    table=CAMVID_32_TO_TRAIN,
    known=(*range(len(CAMVID_32_COLOURS)), IGNORE),
    expected="CamVid's 32 colours",
    colours=CAMVID_32_COLOURS,
    colour_ids=tuple(CAMVID_32_TO_TRAIN[: len(CAMVID_32_COLOURS)].tolist()),
    always_colours=True,  # palette indices depend on the tool that wrote the file; colours do not
    cure="CamVid's colours must match exactly: use the original labels, not resized or JPEG ones",
)


@dataclass(frozen=True)
class _Layout:
    images: Path
    labels: Path
    label_ending: str
    code: LabelEncoding
    published_split: bool = False  # the folder holds all splits; the published list assigns frames


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not CamVid."""
    folders = subfolders(root)
    if _RAW in folders:
        named = {published_split(stem) for stem in _frames(root / _RAW)}
        return tuple(s for s in _SPLITS if s in named) + (("all",) if "" in named else ())
    # Splits without labels count only if another split shows that this is CamVid.
    if not any(f"{s}{e}" in folders for s in _SPLITS for e in ("annot", "_labels")):
        return ()
    return tuple(s for s in _SPLITS if s in folders)


def open_camvid(config: SourceConfig) -> Source:
    """Open one split of CamVid; drive = file-name prefix = domain.

    Raises:
        ConfigError: no root given.
        DataError: not a CamVid folder, no such split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, _openable(root), EXPECTED_LAYOUT)
    layout = _layout(root, config.split)
    images = _frames(layout.images)
    labels: dict[str, str] | None = None
    notes: tuple[str, ...] = ()
    if layout.labels.is_dir():
        images, labels, notes = without_siblings(images, _labels(layout))
        images = {s: path for s, path in images.items() if s in labels or re.search(r"[0-9]", s)}
    pairs = pair(
        images,
        labels,
        image_at=lambda stem: layout.images / f"{stem}.png",
        label_at=lambda stem: layout.labels / f"{stem}{layout.label_ending}.png",
    )
    samples = [
        _sample(config.split, stem, image, label)
        for stem, image, label in pairs
        if not layout.published_split or config.split in ("all", published_split(stem))
    ]
    check_not_empty(samples, layout.images)
    read = partial(read_sample, space=CAMVID_11, code=layout.code)
    return Source("camvid", CAMVID_11, ordered(samples), read, digest, notes)


def published_split(stem: str) -> str:
    """Return the split of a frame of the original layout, "" for an unknown drive.

    The split is that of the SegNet files (367 / 101 / 233), used by later papers: val is the part
    of 0016E5 labelled at 15 Hz, test is Seq05VD and the second half of 0001TP.

    >>> [published_split(s) for s in ("0001TP_008520", "0001TP_008550", "0016E5_07959")]
    ['train', 'test', 'val']
    """
    drive, frame = stem.rpartition("_")[0], last_number(stem)
    if drive == "0016E5":
        return "val" if 7959 <= frame <= 8159 else "train"
    if drive == "0001TP":
        return "train" if frame <= 8520 else "test"
    return {"0006R0": "train", "Seq05VD": "test"}.get(drive, "")


def _openable(root: Path) -> tuple[str, ...]:
    # When CamVid is requested by name, a folder without labels is accepted; detection needs more.
    folders = subfolders(root)
    if _RAW in folders:
        return (*_SPLITS, "all")
    return tuple(split for split in _SPLITS if split in folders)


def _layout(root: Path, split: str) -> _Layout:
    if (root / _RAW).is_dir():
        return _Layout(root / _RAW, root / _APPROVED, "_L", _COLOURS, published_split=True)
    kaggle = root / f"{split}_labels"
    if kaggle.is_dir():
        return _Layout(root / split, kaggle, "_L", _COLOURS)
    return _Layout(root / split, root / f"{split}annot", "", _IDS)


def _frames(folder: Path) -> dict[str, str]:
    return stems(folder, but_not=_SIBLINGS)


def _labels(layout: _Layout) -> dict[str, str]:
    if not layout.label_ending:
        return stems(layout.labels, but_not=_SIBLINGS)
    # Some Kaggle copies give labels the names of images; if both namings exist, use the published
    # one.
    named = stems(layout.labels, layout.label_ending)
    return stems(layout.labels, but_not=_SIBLINGS) | named


def _sample(split: str, stem: str, image: str, label: str | None) -> Sample:
    drive = stem.rpartition("_")[0] or stem
    return Sample(
        id=f"camvid/{split}/{stem}",
        dataset="camvid",
        split=split,
        image=image,
        label=label,
        domain=drive,
        city="cambridge",
        sequence=drive,
        frame=last_number(stem),
        # CamVid's documentation calls 0001TP the dusk drive and the others daytime.
        condition="dusk" if drive == "0001TP" else "day",
    )
