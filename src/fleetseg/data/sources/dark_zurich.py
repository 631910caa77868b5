"""Dark Zurich: rgb_anon/<split>/<time of day>/<drive>/*_rgb_anon.png and gt/ for val.

Training drives are by day, at twilight and by night, without labels. val is one night drive with
labels; val_ref shows the same places by day, without labels (GOPR0356_ref, *_ref_rgb_anon.png).
Merge the folders of the archives (Dark_Zurich_train_anon, Dark_Zurich_val_anon). Labels have
Cityscapes' ids; *_gt_labelIds.png takes precedence over *_gt_labelTrainIds.png.

Sakaridis, Dai, Van Gool: Guided curriculum model adaptation and uncertainty-aware evaluation for
semantic nighttime image segmentation, ICCV 2019,
https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/
"""

from __future__ import annotations

from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.data.sample import Image_HWC, Label_HW, Sample, Source
from fleetseg.data.sources.cityscapes_ids import RAW, TRAIN, derived_ids, raw_ids, read_either
from fleetseg.data.sources.indexing import check_split, existing_root, last_number
from fleetseg.data.sources.places import Facts, Place, published_source

EXPECTED_LAYOUT = ("rgb_anon/<split>/<day, twilight or night>/<drive>/*_rgb_anon.png with gt/",)
TIMES = ("day", "twilight", "night")
_SPLITS = ("train", "val", "test", "val_ref", "test_ref")
_RAW_CODE = raw_ids(cure="Dark Zurich has Cityscapes' raw ids in *_gt_labelIds.png")
_TRAIN_CODE = derived_ids()


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root; () if it is not Dark Zurich."""
    images = root / "rgb_anon"
    return tuple(s for s in _SPLITS if any((images / s / time).is_dir() for time in TIMES))


def open_dark_zurich(config: SourceConfig) -> Source:
    """Open one split of Dark Zurich; time of day = condition = domain.

    Raises:
        ConfigError: no root given.
        DataError: not a Dark Zurich folder, no such split, or no pictures.
    """
    root, split = existing_root(config), config.split
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    places = [
        Place(
            root / "rgb_anon" / split / time,
            root / "gt" / split / time if split == "val" else None,
            image_ending="_rgb_anon",
            label_endings=(f"_gt{RAW}", f"_gt{TRAIN}"),
            prefix=f"{time}/",
        )
        for time in TIMES
        if (root / "rgb_anon" / split / time).is_dir()
    ]
    return published_source("dark_zurich", CITYSCAPES_19, split, places, _facts, _read)


def _read(sample: Sample) -> tuple[Image_HWC, Label_HW | None]:
    return read_either(sample, raw=_RAW_CODE, derived=_TRAIN_CODE)


def _facts(stem: str) -> Facts:
    time, _, rest = stem.partition("/")
    drive, _, name = rest.rpartition("/")
    return Facts(
        domain=time,
        city="zurich",
        sequence=drive or name.partition("_")[0],
        frame=last_number(name),
        condition=time,
    )
