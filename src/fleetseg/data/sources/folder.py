"""Your own pictures: images/ and masks/ with equal stems, and classes.toml.

Alternatively, every mask has its image's stem plus the same ending: a.jpg with a_mask.png.

classes.toml is either `space = "camvid11"` (a built-in label space) or

    classes = ["road", "person"]                 # train id = position
    colours = [[128, 64, 128], [220, 20, 60]]    # optional; also decodes colour-coded masks
    critical = ["person"]                        # optional
    values = [0, 255]                            # optional: the id of each class in the masks
    ignore = [254, [0, 0, 0]]                    # optional: ids and colours that mean void, as 255
    bits = 12                                    # optional: that 16-bit grey images use
    name = "depot"                               # optional: name of the data set
    into = "idd7"                                # optional: a built-in space to read them into
    names = {road = "drivable", person = "living things"}  # its class of each; "" = void

To learn these classes, set data.label_space to "own" or to the path of the file.

Folders below images/ are domains. Splits are <split>/images/ with <split>/masks/ or, for the usual
split names, images/<split>/ with masks/<split>/; if there are neither, images/ stands for any
split.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from fleetseg.config import SourceConfig
from fleetseg.data.labels import (
    IGNORE,
    LABEL_SPACES,
    Colour,
    LabelSpace,
    Table,
    label_space,
    make_table,
)
from fleetseg.data.sample import Sample, Source
from fleetseg.data.sources.indexing import (
    check_not_empty,
    check_split,
    common_ending,
    existing_root,
    last_number,
    ordered,
    pair,
    stems,
    without_siblings,
)
from fleetseg.data.sources.label_encoding import LabelEncoding, train_id_code
from fleetseg.data.sources.reading import digest, read_sample
from fleetseg.data.sources.walking import on_disk, subfolders
from fleetseg.errors import DataError
from fleetseg.files import read_text
from fleetseg.text import composed, listing

EXPECTED_LAYOUT = (
    "images/ with masks/ and classes.toml",
    "<split>/images/ with <split>/masks/ and classes.toml",
    "images/<split>/ with masks/<split>/ and classes.toml",
)
_SPLIT_NAMES = {"train", "val", "test", "training", "validation"}


class _Classes(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = ""
    space: str = ""
    classes: list[str] = []
    colours: list[list[int]] = []
    critical: list[str] = []
    ignore: list[int | list[int]] = []
    values: list[int] = []
    bits: int = 16
    into: str = ""
    names: dict[str, str] = {}

    @property
    def void_ids(self) -> tuple[int, ...]:
        return tuple(each for each in self.ignore if isinstance(each, int))

    @property
    def void_colours(self) -> tuple[Colour, ...]:
        return tuple((e[0], e[1], e[2]) for e in self.ignore if isinstance(e, list))

    @property
    def num_classes(self) -> int:
        return LABEL_SPACES[self.space].num_classes if self.space else len(self.classes)

    @model_validator(mode="after")
    def _fits_together(self) -> _Classes:
        if bool(self.space) == bool(self.classes):
            raise ValueError("give either `classes` or `space`, but not both")
        if self.space and (self.colours or self.critical):
            raise ValueError("`space` defines its own colours and critical classes: remove yours")
        if self.space and self.space not in LABEL_SPACES:
            raise ValueError(f"unknown space '{self.space}'; known: {', '.join(LABEL_SPACES)}")
        if len(set(self.classes)) != len(self.classes) or len(self.classes) > IGNORE:
            raise ValueError("`classes` must be distinct names, at most 255")
        if not all(name.strip() for name in self.classes):
            raise ValueError("`classes` has a name that is blank")
        if self.colours and len(self.colours) != len(self.classes):
            raise ValueError(f"{len(self.colours)} colours for {len(self.classes)} classes")
        colours = [*self.colours, *(each for each in self.ignore if isinstance(each, list))]
        if not all(len(c) == 3 and all(0 <= v <= 255 for v in c) for c in colours):
            raise ValueError("a colour is [red, green, blue], each 0-255")
        if len({tuple(c) for c in self.colours}) != len(self.colours):
            raise ValueError("two classes share a colour")
        if not set(self.critical) <= set(self.classes):
            raise ValueError("`critical` names a class that is not in `classes`")
        return self

    @model_validator(mode="after")
    def _goes_into_a_space(self) -> _Classes:
        if bool(self.into) != bool(self.names):
            raise ValueError("`into` and `names` go together: give both or neither")
        if not self.into:
            return self
        if self.space or self.critical:
            raise ValueError(
                "`into` needs `classes`, not `space`, and defines its own critical classes"
            )
        if self.into not in LABEL_SPACES:
            raise ValueError(f"unknown space '{self.into}'; known: {', '.join(LABEL_SPACES)}")
        if differ := sorted({*self.names} ^ {*self.classes}):
            raise ValueError(f"`names` must have one entry for each class, and no others: {differ}")
        known = ("", *LABEL_SPACES[self.into].classes)
        if wrong := sorted({*self.names.values()} - {*known}):
            raise ValueError(f"`names` has values that are not classes of {self.into}: {wrong}")
        return self

    @model_validator(mode="after")
    def _names_ids(self) -> _Classes:
        taken = LABEL_SPACES[self.space].colours if self.space else self.colours
        if {tuple(c) for c in taken} & set(self.void_colours):
            raise ValueError("`ignore` lists the colour of a class")
        if self.num_classes + len(self.void_colours) > IGNORE:
            raise ValueError("at most 255 colours, including those under `ignore`")
        if not all(0 <= i <= IGNORE for i in (*self.void_ids, *self.values)):
            raise ValueError("ids in `ignore` and `values` must be 0-255")
        if self.values and len(self.values) != self.num_classes:
            raise ValueError(f"{len(self.values)} values for {self.num_classes} classes")
        distinct = {*self.values} - {*self.void_ids}
        if len(distinct) != len(self.values):
            raise ValueError("`values` must be distinct, and none of them listed under `ignore`")
        if not 8 <= self.bits <= 16:
            raise ValueError("`bits` must be 8-16")
        return self


def splits(root: Path) -> tuple[str, ...]:
    """Return the splits found below root ("train" for a lone images/); () if there are none."""
    if (root / "images").is_dir():
        return _inner_splits(root) or ("train",)
    # Without classes.toml here, a folder of any other name is a separate data set, not a split.
    any_name = (root / "classes.toml").is_file()
    names = tuple(name for name in subfolders(root) if any_name or name in _SPLIT_NAMES)
    return tuple(name for name in names if (on_disk(root / name) / "images").is_dir())


def open_folder(config: SourceConfig) -> Source:
    """Open the pictures of one split.

    Raises:
        ConfigError: no root given.
        DataError: no images/, no such split, no pictures, or classes.toml missing or wrong.
    """
    root = existing_root(config)
    images, masks = image_and_mask_folders(config, root)
    classes = _read_classes(root, images.parent)
    dataset = composed(classes.name or root.resolve().name)
    space = _space(classes, dataset)
    files = _files(stems(images), masks)
    pairs = pair(
        files.images,
        files.labels,
        image_at=lambda stem: images / f"{stem}.png",
        label_at=lambda stem: masks / f"{stem}{files.ending}.png",
    )
    samples = ordered(_sample(dataset, composed(config.split), *each) for each in pairs)
    check_not_empty(samples, images)
    read = partial(read_sample, space=space, code=_code(classes), bits=classes.bits)
    return Source(dataset, space, samples, read, digest, files.notes)


@dataclass(frozen=True)
class _Files:
    images: dict[str, str]
    labels: dict[str, str] | None
    ending: str = ""  # what follows the image's stem in the name of each mask
    notes: tuple[str, ...] = ()


def _files(images: dict[str, str], masks: Path) -> _Files:
    if not masks.is_dir():
        return _Files(images, None, notes=_without_masks(masks))
    labels = stems(masks)
    if ending := common_ending(images, labels):
        note = f"each mask is paired with the image of the same name without '{ending}'"
        labels = {stem.removesuffix(ending): path for stem, path in labels.items()}
        return _Files(images, labels, ending, (note,))
    images, labels, notes = without_siblings(images, labels)
    return _Files(images, labels, notes=notes)


def _without_masks(masks: Path) -> tuple[str, ...]:
    inner = masks.parent.name == "masks"  # masks/<split>
    root = masks.parent.parent if inner else masks.parent
    others = [n for n in subfolders(root) if n not in {"images", "masks", *_SPLIT_NAMES}]
    if not others:
        return ()
    return (
        f"there is no {masks}, so that all images are unlabelled; if {listing(others)} has their "
        "labels, rename it",
    )


def _code(classes: _Classes) -> LabelEncoding:
    own = _own_space(classes, "")
    coloured = classes.space or classes.colours
    code = train_id_code(
        own,
        ignore=classes.void_ids,
        colours=own.colours if coloured else (),
        void_colours=classes.void_colours if coloured else (),
        values=tuple(classes.values),
    )
    if not classes.into:
        return code
    target = LABEL_SPACES[classes.into].classes
    named = [classes.names[name] for name in classes.classes]
    table = make_table({i: target.index(name) for i, name in enumerate(named) if name})
    colour_ids = tuple(int(table[i]) for i in code.colour_ids)
    return replace(code, table=make_table(_by_raw_id(table[code.table])), colour_ids=colour_ids)


def _by_raw_id(table: Table) -> dict[int, int]:
    return {raw: int(train_id) for raw, train_id in enumerate(table)}


def space_of(config: SourceConfig) -> LabelSpace:
    """Return the label space that the classes.toml of a folder describes, without indexing it.

    Raises:
        ConfigError, DataError: as `open_folder`.
    """
    root = existing_root(config)
    images, _ = image_and_mask_folders(config, root)
    classes = _read_classes(root, images.parent)
    return _space(classes, classes.name or root.resolve().name)


def read_space(path: Path) -> LabelSpace:
    """Return the label space that a classes.toml describes; its default name is the folder's.

    Raises:
        DataError: the file is missing or invalid.
    """
    classes = _parse_classes(path)
    return _space(classes, classes.name or path.resolve().parent.name)


def _inner_splits(root: Path) -> tuple[str, ...]:
    # Folders below images/ are splits only if all of them have a split's name, else domains.
    names = subfolders(root / "images")
    return names if names and set(names) <= _SPLIT_NAMES else ()


def image_and_mask_folders(config: SourceConfig, root: Path) -> tuple[Path, Path]:
    """Return the image folder of a split, and where its mask folder would be.

    Raises:
        DataError: there is no such split.
    """
    images, masks, split = root / "images", root / "masks", config.split
    inner = _inner_splits(root)
    if images.is_dir() and not inner:
        return images, masks
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    if inner:
        return images / split, masks / split
    folder = on_disk(root / split)
    return folder / "images", folder / "masks"


def _read_classes(root: Path, beside: Path) -> _Classes:
    path = beside / "classes.toml"
    return _parse_classes(path if path.is_file() else root / "classes.toml")


def _parse_classes(path: Path) -> _Classes:
    try:
        return _Classes.model_validate(tomllib.loads(read_text(path)))
    except FileNotFoundError:
        alike = _called_alike(path)
        raise DataError(
            f"{path.name} is missing",
            where=path.parent,
            got=listing(alike) or None,
            cure=f"Rename it to {path.name}"
            if any(name.lower() in ("classes.toml", "classes.toml.txt") for name in alike)
            else 'Write one: classes = ["road", ...] in the order of the ids, '
            f"or space = one of {', '.join(LABEL_SPACES)}",
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        what = first["msg"].removeprefix("Value error, ")
        raise DataError(
            f"{key}: {what}" if key else what,
            where=path,
            expected="keys: " + ", ".join(_Classes.model_fields),
        ) from None
    except ValueError as error:
        raise DataError(f"not valid TOML ({error})", where=path) from None


def _called_alike(path: Path) -> list[str]:
    """Return names like classes.toml.txt, an ending that some desktops add and hide."""
    if not path.parent.is_dir():
        return []
    return sorted(n for n in os.listdir(path.parent) if n.lower().startswith("classes."))


def _space(classes: _Classes, dataset: str) -> LabelSpace:
    """Return the space that labels are read into."""
    return label_space(classes.into) if classes.into else _own_space(classes, dataset)


def _own_space(classes: _Classes, dataset: str) -> LabelSpace:
    """Return the space of the masks' own classes."""
    if classes.space:
        return label_space(classes.space)
    colours = tuple((c[0], c[1], c[2]) for c in classes.colours)
    return LabelSpace(
        name=dataset,
        classes=tuple(classes.classes),
        colours=colours or tuple(map(_colour, range(len(classes.classes)))),
        critical=tuple(classes.critical),
    )


def _colour(index: int) -> Colour:
    """Return a colour of the PASCAL VOC colour map (devkit, VOClabelcolormap), without black."""
    red = green = blue = 0
    bits = index + 1
    for shift in range(7, -1, -1):
        red |= (bits & 1) << shift
        green |= (bits >> 1 & 1) << shift
        blue |= (bits >> 2 & 1) << shift
        bits >>= 3
    return red, green, blue


def _sample(dataset: str, split: str, stem: str, image: str, label: str | None) -> Sample:
    folder, _, name = stem.rpartition("/")
    return Sample(
        id=f"{dataset}/{split}/{stem}",
        dataset=dataset,
        split=split,
        image=image,
        label=label,
        domain=folder.partition("/")[0] or dataset,
        sequence=folder or dataset,
        frame=last_number(name),
    )
