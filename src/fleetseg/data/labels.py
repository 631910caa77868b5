"""Label spaces, raw-id tables and projections between spaces: the only place that defines ids.

A table is a read-only array of 256 train ids, indexed by raw id: `train_ids = table[raw_ids]`.
Raw ids that have no meaning in the target space map to IGNORE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.data.projections import HUB, PROJECTIONS
from fleetseg.data.published_classes import (
    A2D2_COLOURS,
    CROSSCITY_CLASSES,
    IDD_LEVEL_3,
    IDDA_CLASSES,
)
from fleetseg.data.published_classes import Colour as Colour
from fleetseg.errors import ConfigError, unknown_name

IGNORE = 255
"""The id, in every label space, of pixels that count neither in a loss nor in a score."""
ERASED = 254
"""In a client's training labels: pixels of a class that it does not label. See data.erased."""

Table = npt.NDArray[np.uint8]
"""256 entries: raw id -> train id or IGNORE."""


@dataclass(frozen=True)
class LabelSpace:
    """Ordered classes with their colours; train id i is `classes[i]`.

    `critical` names the classes whose misses hurt people; they are also scored separately.
    """

    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    critical: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """Number of train ids; valid ids are 0 .. num_classes - 1 and IGNORE."""
        return len(self.classes)


CAMVID_11 = LabelSpace(
    name="camvid11",
    classes=(
        "sky", "building", "pole", "road", "pavement", "tree",
        "sign", "fence", "car", "pedestrian", "bicyclist",
    ),
    colours=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    critical=("pole", "sign", "pedestrian", "bicyclist"),
)  # fmt: skip

# Names, order and colours are those of cityscapesScripts' helpers/labels.py (a test compares).
# Pole is critical here because it is critical in CamVid-11, where poles carry the traffic lights:
# so the critical scores of both spaces cover the same things.
CITYSCAPES_19 = LabelSpace(
    name="cityscapes19",
    classes=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    colours=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    critical=(
        "pole", "traffic light", "traffic sign", "person", "rider", "motorcycle", "bicycle",
    ),
)  # fmt: skip

# IDD's level-1 classes. Colours are those of a typical member in Cityscapes.
IDD_7 = LabelSpace(
    name="idd7",
    classes=(
        "drivable", "non-drivable", "living things", "vehicles", "roadside objects",
        "far objects", "sky",
    ),
    colours=(
        (128, 64, 128), (244, 35, 232), (220, 20, 60), (0, 0, 142), (220, 220, 0),
        (107, 142, 35), (70, 130, 180),
    ),
    critical=("living things", "roadside objects"),
)  # fmt: skip


def _part_of_cityscapes(name: str, classes: tuple[str, ...]) -> LabelSpace:
    """Return a space with a subset of the Cityscapes classes and their colours."""
    colour_of = dict(zip(CITYSCAPES_19.classes, CITYSCAPES_19.colours, strict=True))
    critical = tuple(c for c in classes if c in CITYSCAPES_19.critical)
    return LabelSpace(name, classes, tuple(colour_of[c] for c in classes), critical)


CROSSCITY_13 = _part_of_cityscapes("crosscity13", CROSSCITY_CLASSES)
# Ids 0-13 agree with Cityscapes, 14 and 15 do not: compare by name.
IDDA_16 = _part_of_cityscapes("idda16", IDDA_CLASSES)
# IDD's level-3 classes; animals are in "person", trains and caravans in "vehicle fallback".
IDD_26 = LabelSpace(
    name="idd26",
    classes=tuple(IDD_LEVEL_3),
    colours=tuple(IDD_LEVEL_3.values()),
    critical=(
        "person", "rider", "motorcycle", "bicycle", "traffic sign", "traffic light", "pole",
    ),
)  # fmt: skip
A2D2_38 = LabelSpace(
    name="a2d2_38",
    classes=tuple(A2D2_COLOURS),
    colours=tuple(first for first, *_ in A2D2_COLOURS.values()),
    critical=(
        "Pedestrian", "Bicycle", "Small vehicles", "Traffic signal", "Traffic sign", "Poles",
    ),
)  # fmt: skip

LABEL_SPACES: dict[str, LabelSpace] = {
    space.name: space
    for space in (CAMVID_11, CITYSCAPES_19, IDD_7, CROSSCITY_13, IDDA_16, IDD_26, A2D2_38)
}


def label_space(name: str) -> LabelSpace:
    """Return the label space of this name.

    Raises:
        ConfigError: the name is unknown; lists the known ones.
    """
    if name not in LABEL_SPACES:
        raise unknown_name("label space", name, LABEL_SPACES)
    return LABEL_SPACES[name]


def make_table(train_id_of: Mapping[int, int]) -> Table:
    """Return a mapping raw id -> train id as a read-only 256-entry table; other ids are IGNORE.

    >>> make_table({7: 0})[[7, 8]].tolist()
    [0, 255]
    """
    table = np.full(256, IGNORE, dtype=np.uint8)
    for raw_id, train_id in train_id_of.items():
        table[raw_id] = train_id
    table.setflags(write=False)
    return table


def identity_table(space: LabelSpace) -> Table:
    """Return the table that keeps the train ids of a space and maps all others to IGNORE."""
    return make_table({i: i for i in range(space.num_classes)})


CITYSCAPES_RAW_IDS = 34
"""Raw Cityscapes ids are 0 .. 33, and -1 (licence plate), which 8-bit files store as 255."""

CITYSCAPES_ID_TO_TRAIN = make_table({
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
})  # fmt: skip
"""Cityscapes labelIds -> cityscapes19."""

CAMVID_SEGNET_VOID = 11
CAMVID_SEGNET_TO_TRAIN = identity_table(CAMVID_11)
"""Ids of the SegNet files -> camvid11: 0-10 unchanged, 11 (void) and all others IGNORE."""

# The 32 colours of the original labels, in the order of their class_dict, each with the camvid11
# class assigned by SegNet's published grouping (also in MathWorks' CamVid example); None = void.
# A colour must match exactly: a similar colour is not a class.
_CAMVID_32: tuple[tuple[str, Colour, str | None], ...] = (
    ("Animal", (64, 128, 64), "pedestrian"),
    ("Archway", (192, 0, 128), "building"),
    ("Bicyclist", (0, 128, 192), "bicyclist"),
    ("Bridge", (0, 128, 64), "building"),
    ("Building", (128, 0, 0), "building"),
    ("Car", (64, 0, 128), "car"),
    ("CartLuggagePram", (64, 0, 192), "pedestrian"),
    ("Child", (192, 128, 64), "pedestrian"),
    ("Column_Pole", (192, 192, 128), "pole"),
    ("Fence", (64, 64, 128), "fence"),
    ("LaneMkgsDriv", (128, 0, 192), "road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "road"),
    ("Misc_Text", (128, 128, 64), "sign"),
    ("MotorcycleScooter", (192, 0, 192), "bicyclist"),
    ("OtherMoving", (128, 64, 64), "car"),
    ("ParkingBlock", (64, 192, 128), "pavement"),
    ("Pedestrian", (64, 64, 0), "pedestrian"),
    ("Road", (128, 64, 128), "road"),
    ("RoadShoulder", (128, 128, 192), "pavement"),
    ("Sidewalk", (0, 0, 192), "pavement"),
    ("SignSymbol", (192, 128, 128), "sign"),
    ("Sky", (128, 128, 128), "sky"),
    ("SUVPickupTruck", (64, 128, 192), "car"),
    ("TrafficCone", (0, 0, 64), "pole"),
    ("TrafficLight", (0, 64, 64), "sign"),
    ("Train", (192, 64, 128), "car"),
    ("Tree", (128, 128, 0), "tree"),
    ("Truck_Bus", (192, 128, 192), "car"),
    ("Tunnel", (64, 0, 64), "building"),
    ("VegetationMisc", (192, 192, 0), "tree"),
    ("Void", (0, 0, 0), None),
    ("Wall", (64, 192, 0), "building"),
)

CAMVID_32_CLASSES = tuple(name for name, _, _ in _CAMVID_32)
CAMVID_32_COLOURS = tuple(colour for _, colour, _ in _CAMVID_32)
CAMVID_32_TO_TRAIN = make_table(
    {i: CAMVID_11.classes.index(name) for i, (_, _, name) in enumerate(_CAMVID_32) if name}
)
"""Index into CAMVID_32_COLOURS -> camvid11."""


def raw_id_table(space: LabelSpace) -> Table:
    """Return the table train id -> id in the data set's own files, such as Cityscapes' labelIds.

    >>> raw_id_table(CITYSCAPES_19)[[0, 18, 255]].tolist()
    [7, 33, 255]

    Raises:
        ConfigError: the space does not belong to a data set with its own ids.
    """
    raw_to_train = {
        CITYSCAPES_19.classes: CITYSCAPES_ID_TO_TRAIN,
        CAMVID_11.classes: CAMVID_SEGNET_TO_TRAIN,
        IDD_7.classes: identity_table(IDD_7),  # IDD-Lite's files
    }
    if space.classes not in raw_to_train:
        raise ConfigError(
            f"the raw ids of label space '{space.name}' are unknown",
            expected="the classes of camvid11, cityscapes19 or idd7",
            cure="Write train ids: each pixel is an index into the model's list of classes",
        )
    raw_ids = np.flatnonzero(raw_to_train[space.classes] != IGNORE)
    return make_table({int(raw_to_train[space.classes][raw]): int(raw) for raw in raw_ids})


def projection(source: LabelSpace, target: LabelSpace) -> Table:
    """Return the table that maps train ids of `source` to train ids of `target`.

    Spaces are identified by their classes and order, not by name. A pair without its own table is
    projected through cityscapes19; a class with no counterpart there becomes IGNORE.

    >>> projection(CAMVID_11, IDD_7)[:12].tolist()
    [6, 5, 4, 0, 1, 5, 4, 4, 3, 2, 2, 255]

    Raises:
        ConfigError: no projection is known between the two; lists the known ones.
    """
    if source.classes == target.classes:
        return identity_table(target)
    # By classes, not by name: a user's space may have a built-in name and other classes.
    built_in = {space.classes: name for name, space in LABEL_SPACES.items()}
    key = (built_in.get(source.classes, ""), built_in.get(target.classes, ""))
    if key in PROJECTIONS:
        return _table_of(key)
    to_hub, from_hub = (key[0], HUB), (HUB, key[1])
    if to_hub in PROJECTIONS and from_hub in PROJECTIONS:
        return _then(_table_of(to_hub), _table_of(from_hub))
    known = ", ".join(f"{a} -> {b}" for a, b in PROJECTIONS)
    raise ConfigError(
        f"no projection from label space '{source.name}' to '{target.name}'",
        expected=f"the same space or one of: {known}; or two of them through {HUB}",
        cure="Choose a data.label_space that every source can be projected to"
        + ("" if key[0] else ", or 'own' for the classes of the source's classes.toml"),
    )


def _table_of(key: tuple[str, str]) -> Table:
    source, target, names = LABEL_SPACES[key[0]], LABEL_SPACES[key[1]], PROJECTIONS[key]
    return make_table(
        {
            i: target.classes.index(wanted)
            for i, name in enumerate(source.classes)
            if (wanted := names[name]) is not None
        }
    )


def _then(first: Table, second: Table) -> Table:
    # Both tables map IGNORE to IGNORE, so what the first ignores stays ignored.
    both = second[first]
    both.setflags(write=False)
    return both


def ids_from_colours(
    rgb_HWC: npt.NDArray[np.uint8], colours: Sequence[Colour]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return each pixel's index into `colours`, and a mask of pixels with an unknown colour.

    Args:
        rgb_HWC: uint8, shape (height, width, 3).
        colours: distinct, at most 255.

    Returns:
        ids_HW, uint8, IGNORE where no colour matches exactly; unknown_HW, bool.
    """
    weights = np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    codes = np.asarray(colours, dtype=np.int32) @ weights
    order = np.argsort(codes)
    pixels_HW = rgb_HWC.astype(np.int32) @ weights
    slots_HW = np.searchsorted(codes, pixels_HW, sorter=order).clip(max=len(codes) - 1)
    ids_HW = order[slots_HW]
    unknown_HW = codes[ids_HW] != pixels_HW
    return np.where(unknown_HW, IGNORE, ids_HW).astype(np.uint8), unknown_HW
