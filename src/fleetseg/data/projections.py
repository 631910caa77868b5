"""How classes of one label space map to those of another. Data only, for `labels.projection`.

(source, target) -> target class of each source class by name; None = no faithful target.
"""

from __future__ import annotations

from fleetseg.data.published_classes import CROSSCITY_CLASSES, IDDA_CLASSES

Names = dict[str, str | None]

HUB = "cityscapes19"
"""Two spaces without a direct table are projected through this one."""

# SegNet's grouping: wall is building, lights are signs, trucks and trains are cars,
# two-wheelers belong to the bicyclist. Grass has no class in CamVid-11: ignored.
_CITYSCAPES_TO_CAMVID: Names = {
    "road": "road", "sidewalk": "pavement", "building": "building", "wall": "building",
    "fence": "fence", "pole": "pole", "traffic light": "sign", "traffic sign": "sign",
    "vegetation": "tree", "terrain": None, "sky": "sky", "person": "pedestrian",
    "rider": "bicyclist", "car": "car", "truck": "car", "bus": "car", "train": "car",
    "motorcycle": "bicyclist", "bicycle": "bicyclist",
}  # fmt: skip

# IDD's own hierarchy: walls and fences are roadside objects, two-wheelers are vehicles.
_CITYSCAPES_TO_IDD_7: Names = {
    "road": "drivable", "sidewalk": "non-drivable", "building": "far objects",
    "wall": "roadside objects", "fence": "roadside objects", "pole": "roadside objects",
    "traffic light": "roadside objects", "traffic sign": "roadside objects",
    "vegetation": "far objects", "terrain": "non-drivable", "sky": "sky",
    "person": "living things", "rider": "living things", "car": "vehicles",
    "truck": "vehicles", "bus": "vehicles", "train": "vehicles", "motorcycle": "vehicles",
    "bicycle": "vehicles",
}  # fmt: skip

# CamVid's bicyclist is rider and bicycle in one; IDD separates them into living things and
# vehicles. The human takes precedence: a bicyclist is a living thing.
_CAMVID_TO_IDD_7: Names = {
    "sky": "sky", "building": "far objects", "pole": "roadside objects", "road": "drivable",
    "pavement": "non-drivable", "tree": "far objects", "sign": "roadside objects",
    "fence": "roadside objects", "car": "vehicles", "pedestrian": "living things",
    "bicyclist": "living things",
}  # fmt: skip

# level1Id and csTrainId of AutoNUE's helpers/anue_labels.py. Where members of a level-3 class have
# several csTrainIds, the member that names the class decides (rail tracks become terrain with the
# rest of "non-drivable fallback"; trains are lost in "vehicle fallback").
_IDD_26_TO: dict[str, tuple[str, str | None]] = {
    "road": ("drivable", "road"),
    "drivable fallback": ("drivable", None),
    "sidewalk": ("non-drivable", "sidewalk"),
    "non-drivable fallback": ("non-drivable", "terrain"),
    "person": ("living things", "person"),
    "rider": ("living things", "rider"),
    "motorcycle": ("vehicles", "motorcycle"),
    "bicycle": ("vehicles", "bicycle"),
    "autorickshaw": ("vehicles", None),
    "car": ("vehicles", "car"),
    "truck": ("vehicles", "truck"),
    "bus": ("vehicles", "bus"),
    "vehicle fallback": ("vehicles", None),
    "curb": ("roadside objects", None),
    "wall": ("roadside objects", "wall"),
    "fence": ("roadside objects", "fence"),
    "guard rail": ("roadside objects", None),
    "billboard": ("roadside objects", None),
    "traffic sign": ("roadside objects", "traffic sign"),
    "traffic light": ("roadside objects", "traffic light"),
    "pole": ("roadside objects", "pole"),
    "obs-str-bar-fallback": ("roadside objects", None),
    "building": ("far objects", "building"),
    "bridge": ("far objects", None),
    "vegetation": ("far objects", "vegetation"),
    "sky": ("sky", "sky"),
}

# Our own mapping, by class name: A2D2 publishes no table. An ambiguous name maps to None.
_A2D2_TO: dict[str, tuple[str | None, str | None]] = {
    "Car": ("vehicles", "car"),
    "Bicycle": ("vehicles", "bicycle"),
    "Pedestrian": ("living things", "person"),
    "Truck": ("vehicles", "truck"),
    "Small vehicles": ("vehicles", None),
    "Traffic signal": ("roadside objects", "traffic light"),
    "Traffic sign": ("roadside objects", "traffic sign"),
    "Utility vehicle": ("vehicles", None),
    "Sidebars": ("roadside objects", None),
    "Speed bumper": ("drivable", "road"),
    "Curbstone": ("non-drivable", "sidewalk"),
    "Solid line": ("drivable", "road"),
    "Irrelevant signs": ("roadside objects", None),
    "Road blocks": ("roadside objects", None),
    "Tractor": ("vehicles", None),
    "Non-drivable street": ("non-drivable", None),
    "Zebra crossing": ("drivable", "road"),
    "Obstacles / trash": (None, None),
    "Poles": ("roadside objects", "pole"),
    "RD restricted area": ("drivable", "road"),
    "Animals": ("living things", None),
    "Grid structure": ("roadside objects", None),
    "Signal corpus": ("roadside objects", None),
    "Drivable cobblestone": ("drivable", "road"),
    "Electronic traffic": ("roadside objects", None),
    "Slow drive area": ("drivable", "road"),
    "Nature object": ("far objects", "vegetation"),
    "Parking area": ("drivable", None),
    "Sidewalk": ("non-drivable", "sidewalk"),
    "Ego car": (None, None),
    "Painted driv. instr.": ("drivable", "road"),
    "Traffic guide obj.": ("roadside objects", None),
    "Dashed line": ("drivable", "road"),
    "RD normal street": ("drivable", "road"),
    "Sky": ("sky", "sky"),
    "Buildings": ("far objects", "building"),
    "Blurred area": (None, None),
    "Rain dirt": (None, None),
}


def _some_of_cityscapes(classes: tuple[str, ...]) -> Names:
    return {name: name if name in classes else None for name in _CITYSCAPES_TO_IDD_7}


PROJECTIONS: dict[tuple[str, str], Names] = {
    ("camvid11", "idd7"): _CAMVID_TO_IDD_7,
    ("cityscapes19", "idd7"): _CITYSCAPES_TO_IDD_7,
    ("cityscapes19", "camvid11"): _CITYSCAPES_TO_CAMVID,
    ("cityscapes19", "crosscity13"): _some_of_cityscapes(CROSSCITY_CLASSES),
    ("cityscapes19", "idda16"): _some_of_cityscapes(IDDA_CLASSES),
    ("crosscity13", "cityscapes19"): {name: name for name in CROSSCITY_CLASSES},
    ("idda16", "cityscapes19"): {name: name for name in IDDA_CLASSES},
    ("idd26", "idd7"): {name: seven for name, (seven, _) in _IDD_26_TO.items()},
    ("idd26", "cityscapes19"): {name: other for name, (_, other) in _IDD_26_TO.items()},
    ("a2d2_38", "idd7"): {name: seven for name, (seven, _) in _A2D2_TO.items()},
    ("a2d2_38", "cityscapes19"): {name: other for name, (_, other) in _A2D2_TO.items()},
}
