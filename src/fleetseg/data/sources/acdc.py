"""ACDC: fog, night, rain and snow, rgb_anon/<condition>/<split>/<drive>/*_rgb_anon.png and gt/.

Splits are train, val and test (without labels) of all four conditions, and train_ref, val_ref and
test_ref: the same places in clear weather by day, *_rgb_ref_anon.png, some of which have labels
(*_gt_ref_labelTrainIds.png). The folders may stay where the archives unpack them:
rgb_anon_trainvaltest/rgb_anon/ and gt_trainval/gt/. Labels have Cityscapes' ids; *_gt_labelIds.png
takes precedence over *_gt_labelTrainIds.png.

Sakaridis, Dai, Van Gool: ACDC: The adverse conditions dataset with correspondences, ICCV 2021,
https://acdc.vision.ee.ethz.ch
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources.cityscapes_ids import RAW, TRAIN, derived_ids, raw_ids, read_either
from fleetseg.data.sources.indexing import check_split, existing_root, last_number
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.walking import subfolders

EXPECTED_LAYOUT = ("rgb_anon/<condition>/<split>/<drive>/*_rgb_anon.png with gt/",)
CONDITIONS = ("fog", "night", "rain", "snow")
CLEAR = "clear"
"""Condition and domain of reference frames."""
_SPLITS = ("train", "val", "test", "train_ref", "val_ref", "test_ref")
_REF = "_ref"
_RAW_CODE = raw_ids(cure="ACDC has Cityscapes' raw ids in *_gt_labelIds.png")
_TRAIN_CODE = derived_ids()


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not ACDC."""
    images = _folder(root, "rgb_anon", "rgb_anon_trainvaltest")
    return tuple(s for s in _SPLITS if any((images / c / s).is_dir() for c in CONDITIONS))


def open_acdc(config: SourceConfig) -> Source:
    """Open one split of the conditions present; condition = domain, "clear" for reference frames.

    Raises:
        ConfigError: no root given.
        DataError: not an ACDC folder, no such split, or no pictures.
    """
    root, split = existing_root(config), config.split
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    images = _folder(root, "rgb_anon", "rgb_anon_trainvaltest")
    labels = _folder(root, "gt", "gt_trainval")
    there = [c for c in CONDITIONS if (images / c / split).is_dir()]
    missing = [c for c in CONDITIONS if c not in there]
    places = [_place(images, labels, c, split) for c in there]
    notes = (f"no {split} frames of {', '.join(missing)}",) if missing else ()
    facts_of = partial(_facts, is_reference=split.endswith(_REF))
    return published_source("acdc", CITYSCAPES_19, split, places, facts_of, _read, notes)


def _folder(root: Path, name: str, archive: str) -> Path:
    unpacked = root / archive / name
    return unpacked if name in subfolders(root / archive) else root / name


def _place(images: Path, labels: Path, condition: str, split: str) -> Place:
    is_reference = split.endswith(_REF)
    kind = "_gt_ref" if is_reference else "_gt"
    of_split = labels / condition / split
    # Test labels are not public; some reference frames have labels, or none has.
    expected = not split.startswith("test") and not is_reference
    return Place(
        images / condition / split,
        of_split if expected or of_split.is_dir() else None,
        image_ending="_rgb_ref_anon" if is_reference else "_rgb_anon",
        label_endings=(f"{kind}{RAW}", f"{kind}{TRAIN}"),
        prefix=f"{condition}/",
        partly=is_reference,
    )


def _read(sample: Sample) -> tuple[Image_HWC, Label_HW | None]:
    return read_either(sample, raw=_RAW_CODE, derived=_TRAIN_CODE)


def _facts(stem: str, *, is_reference: bool) -> Facts:
    condition, _, rest = stem.partition("/")
    drive, _, name = rest.rpartition("/")
    # The same camera names recur in other conditions, but those are different drives.
    sequence = f"{condition}_{drive or name.partition('_')[0]}"
    seen = CLEAR if is_reference else condition
    return Facts(
        domain=seen,
        sequence=f"{sequence}{_REF}" if is_reference else sequence,
        frame=last_number(name),
        condition=seen,
    )
