"""GTA5 (Playing for Data): images/<frame>.png with labels/<frame>.png, frames 00001 to 24966.

Labels are palette images whose indices are Cityscapes' raw ids, plus 34 for licence plates; the
palette is that of the authors' initLabels.m. Index and colour must agree, and files in plain
colours must contain no other colour: an unknown colour is an error, and is never mapped to a
similar one. By colour alone, a licence plate is a car and a group of poles a pole, since they share
a colour.

The paper's split is published only as a MATLAB file. If train.txt, val.txt or test.txt lies in the
folder or in splits/ (LADD: a line "/images/09058.png /labels/09058.png"), these are the splits;
otherwise all frames are "train".

Richter et al.: Playing for data: Ground truth from computer games, ECCV 2016,
https://download.visinf.tu-darmstadt.de/data/from_games/
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19, CITYSCAPES_ID_TO_TRAIN, IGNORE, Colour
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources.indexing import check_split, existing_root
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import image_size, read_sample
from fleetseg.data.sources.walking import pictures
from fleetseg.errors import BadSample, DataError
from fleetseg.files import read_text
from fleetseg.text import listing

EXPECTED_LAYOUT = ("images/00001.png ... with labels/00001.png ...",)
PALETTE: tuple[Colour, ...] = (
    (0, 0, 0), (0, 0, 0), (0, 0, 0), (0, 0, 0), (20, 20, 20), (111, 74, 0), (81, 0, 81),
    (128, 64, 128), (244, 35, 232), (250, 170, 160), (230, 150, 140), (70, 70, 70),
    (102, 102, 156), (190, 153, 153), (180, 165, 180), (150, 100, 100), (150, 120, 90),
    (153, 153, 153), (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35),
    (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 0, 90), (0, 0, 110), (0, 80, 100), (0, 0, 230), (119, 11, 32), (0, 0, 142),
)  # fmt: skip
"""Colour of each id, 0-34."""
ODD_SIZES = ("15188", "17705")
"""Frames whose published label differs in size from the image."""
_SPLITS = ("train", "val", "test")
_FRAME = re.compile(r"[0-9]{5}")
_DISTINCT = tuple(dict.fromkeys(PALETTE))
_CODE = LabelEncoding(
    table=CITYSCAPES_ID_TO_TRAIN,
    known=(*range(len(PALETTE)), IGNORE),
    expected="ids 0-34 of GTA5, or 255",
    colours=_DISTINCT,
    # Of ids that share a colour, the first is used: pole before polegroup, car before plate.
    colour_ids=tuple(int(CITYSCAPES_ID_TO_TRAIN[PALETTE.index(c)]) for c in _DISTINCT),
    cure="GTA5's colours must match exactly: use the published label, not resized or JPEG ones",
    palette=PALETTE,
)


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not GTA5."""
    if not (root / "labels").is_dir():
        return ()
    names = [stem for stem, _ in pictures(root / "labels")]
    return _openable(root) if names and all(_FRAME.fullmatch(name) for name in names) else ()


def open_gta5(config: SourceConfig) -> Source:
    """Open GTA5, or one split of it; frames have no drive, city or weather.

    The two frames with odd sizes are skipped with a note.

    Raises:
        ConfigError: no root given.
        DataError: not a GTA5 folder, no such split, no pictures, or a list with unknown frames.
    """
    root = existing_root(config)
    check_split(config, root, _openable(root), EXPECTED_LAYOUT)
    read = partial(read_sample, space=CITYSCAPES_19, code=_CODE)
    place = Place(root / "images", root / "labels")
    source = published_source("gta5", CITYSCAPES_19, config.split, [place], _facts, read)
    samples = _listed(root, config.split, source.samples)
    odd = [sample for sample in samples if _is_odd(sample)]
    notes = source.notes
    if odd:
        names = listing([Path(sample.image).name for sample in odd])
        notes += (f"{names} left out: the published label differs in size from the image",)
    kept = tuple(sample for sample in samples if sample not in odd)
    return Source("gta5", CITYSCAPES_19, kept, source.read, source.digest, notes)


def _openable(root: Path) -> tuple[str, ...]:
    if not (root / "images").is_dir():
        return ()
    return tuple(s for s in _SPLITS if _list_of(root, s) is not None) or ("train",)


def _list_of(root: Path, split: str) -> Path | None:
    places = (root / f"{split}.txt", root / "splits" / f"{split}.txt")
    return next((path for path in places if path.is_file()), None)


def _listed(root: Path, split: str, samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    path = _list_of(root, split)
    if path is None:
        return samples
    lines = [line.split() for line in read_text(path).splitlines()]
    wanted = {PurePosixPath(words[0]).stem for words in lines if words}
    by_stem = {sample.id.rpartition("/")[2]: sample for sample in samples}
    if missing := sorted(wanted - by_stem.keys()):
        raise DataError(
            f"{len(missing)} listed frames are missing",
            where=path,
            got=listing(missing, 8),
            expected=f"each of them in {root / 'images'} or {root / 'labels'}",
            cure="Unpack all ten archives of images and of labels, or shorten the list",
        )
    return tuple(sample for stem, sample in by_stem.items() if stem in wanted)


def _is_odd(sample: Sample) -> bool:
    if sample.label is None or Path(sample.image).stem not in ODD_SIZES:
        return False
    try:
        return image_size(sample.image) != image_size(sample.label)
    except BadSample:  # the error will show when the sample is read
        return False


def _facts(stem: str) -> Facts:
    return Facts(domain="gta5", frame=int(stem) if stem.isdigit() else 0)
