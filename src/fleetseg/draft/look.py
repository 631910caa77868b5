"""Inspect a folder: layout, splits, classes, drives, image sizes. The user is asked nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.check import detect
from fleetseg.data.labels import LabelSpace
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources import LAYOUTS, SPLITS, evenly_spaced, folder, open_source
from fleetseg.data.sources.indexing import stems, wrong_layout
from fleetseg.data.sources.reading import image_size
from fleetseg.data.spaces import is_built_in
from fleetseg.draft.classes import draft_classes
from fleetseg.errors import BadSample, DataError, unknown_name
from fleetseg.files import write_atomic
from fleetseg.text import listing

_HEADERS = 64  # images whose size is read
PAINTED_CITIES = ("amber", "birch", "coral", "delta")
PAINTED_CONDITIONS = ("day", "rain")
_PAINTED_HW = (192, 256)
_TRAIN = ("train", "training", "Train")
_SCORED = ("val", "validation", "test", "Test")
_DUMMY_LABELS = {("cityscapes", "test")}
"""Splits whose label files are placeholders without content."""


@dataclass(frozen=True)
class Part:
    """One split of a data set."""

    split: str
    images: int
    labelled: int
    drives: frozenset[str]


@dataclass(frozen=True)
class Found:
    """The facts of a data set that an experiment depends on."""

    kind: str
    root: str  # "" for synthetic data
    name: str
    space: LabelSpace
    parts: tuple[Part, ...]
    train: Part
    scored: Part | None  # a split to score on; None: no other split has labels
    facts: dict[str, int]  # number of drives, cities, vehicles in the training images
    size_hw: tuple[int, int]  # the most frequent size of images
    num_sizes: int  # among the images examined
    wrote: Path | None = None  # a classes.toml that was missing

    @property
    def is_own(self) -> bool:
        """Whether the classes are the folder's own."""
        return not is_built_in(self.space)


def look(path: Path, kind: str = "") -> Found:
    """Inspect a folder; draft the classes.toml that a folder of images and masks may lack.

    Args:
        path: the folder of a data set; ignored for kind "synthetic".
        kind: its layout; "" = detect it.

    Raises:
        ConfigError: no such layout.
        DataError: no folder, nothing known in it, several data sets, or no labels.
    """
    configs = _configs(path, kind)
    wrote = _draft_missing_classes(configs) if configs[0].kind == "folder" else None
    sources = {config.split: open_source(config) for config in configs}
    parts = tuple(_part(split, source) for split, source in sources.items())
    train = _first_labelled(parts, _TRAIN, configs[0].kind)
    if train is None:
        train = max(parts, key=lambda part: part.labelled)
    if not train.labelled:
        raise DataError(
            "no image has a label, and the model has to learn the classes from somewhere",
            where=path,
            got=", ".join(f"{part.images} images in {part.split}" for part in parts),
            cure="Put masks beside the images, or teach vehicles without labels: "
            "training.supervision = 'self_training'",
        )
    others = tuple(part for part in parts if part is not train)
    chosen = sources[train.split]
    size_hw, num_sizes = _sizes(chosen.samples, configs[0].kind)
    return Found(
        kind=configs[0].kind,
        root=configs[0].root,
        name=chosen.name,
        space=chosen.space,
        parts=parts,
        train=train,
        scored=_first_labelled(others, _SCORED, configs[0].kind),
        facts={fact: _distinct(chosen, fact) for fact in ("sequence", "city", "vehicle")},
        size_hw=size_hw,
        num_sizes=num_sizes,
        wrote=wrote,
    )


def _configs(path: Path, kind: str) -> list[SourceConfig]:
    if kind == "synthetic":
        drives = {"cities": PAINTED_CITIES, "conditions": PAINTED_CONDITIONS}
        return [SourceConfig(kind=kind, split=split, **drives) for split in ("train", "val")]
    if kind and kind not in SPLITS:
        raise unknown_name("layout", kind, ["synthetic", *SPLITS])
    if kind:
        splits = SPLITS[kind](path) if path.is_dir() else ()
        if not splits:
            raise wrong_layout(path, f"no data set of kind '{kind}'", LAYOUTS[kind])
        return [SourceConfig(kind=kind, root=str(path), split=split) for split in splits]
    found = detect(path)
    roots = sorted({(config.kind, config.root) for config in found})
    if len(roots) > 1:
        listed = [f"{root} ({kind})" for kind, root in roots]
        raise DataError(
            "several data sets in this folder",
            where=path,
            got=listing(listed, 6),
            cure="Name the folder of one of them",
        )
    return found


def _draft_missing_classes(configs: Sequence[SourceConfig]) -> Path | None:
    """Write the classes.toml of a folder of images and masks, if there is none."""
    root, masks = Path(configs[0].root), []
    for config in configs:
        images, labels = folder.image_and_mask_folders(config, root)
        if any((place / "classes.toml").is_file() for place in (root, images.parent)):
            return None
        masks += list(stems(labels).values()) if labels.is_dir() else []
    if not masks:
        raise DataError(
            "there are images but no masks",
            where=root,
            expected=" or ".join(folder.EXPECTED_LAYOUT),
        )
    path = root / "classes.toml"
    write_atomic(path, draft_classes(masks, root))
    return path


def _part(split: str, source: Source) -> Part:
    labelled = sum(sample.label is not None for sample in source.samples)
    drives = frozenset(sample.sequence for sample in source.samples) - {""}
    return Part(split, len(source.samples), labelled, drives)


def _first_labelled(parts: Sequence[Part], names: Sequence[str], kind: str) -> Part | None:
    by_name = {part.split: part for part in parts if part.labelled}
    for name in names:
        if name in by_name and (kind, name) not in _DUMMY_LABELS:
            return by_name[name]
    return None


def _distinct(source: Source, fact: str) -> int:
    return len({getattr(sample, fact) for sample in source.samples} - {""})


def _sizes(samples: Sequence[Sample], kind: str) -> tuple[tuple[int, int], int]:
    """Return the most frequent (height, width) of some images, and how many sizes there are."""
    if kind == "synthetic":
        return _PAINTED_HW, 1
    seen: Counter[tuple[int, int]] = Counter()
    for sample in evenly_spaced(samples, _HEADERS):
        try:
            seen[image_size(sample.image)] += 1
        except BadSample:
            continue
    if not seen:
        raise DataError("no image can be read", where=samples[0].image)
    return seen.most_common(1)[0][0], len(seen)
