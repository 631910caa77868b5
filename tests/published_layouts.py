"""Tiny data sets in exactly the layouts in which they are published, for the tests of sources.

Names of folders and files, endings, palettes, bit depths and ids are those of the publications. The
label of each set's first frame holds all of `RAW_IDS`, row by row, and then the last of them again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from PIL import Image

SIZE_HW = (8, 16)
CITYSCAPES_RAW = tuple(range(34))
RAW_IDS: dict[str, tuple[int, ...]] = {
    "gta5": tuple(range(35)),
    "acdc": CITYSCAPES_RAW,
    "dark_zurich": CITYSCAPES_RAW,
    "bdd100k": (*range(19), 255),
    "mapillary": tuple(range(66)),
    "idda": tuple(range(24)),
    "crosscity": CITYSCAPES_RAW,
    "idd": (*range(26), 255),
    "kitti": CITYSCAPES_RAW,
    "wilddash": tuple(range(39)),
    "selma": (*range(23), 40, 41, *range(100, 106)),
}
"""Ids of the labels of each set that has ids; A2D2 has colours."""
ROAD: dict[str, int] = {
    "bdd100k": 0, "mapillary": 13, "idda": 7, "idd": 0, "selma": 7,
}  # fmt: skip
"""The raw id of road; it is 7 in the others, as in Cityscapes."""
# GTA5 has Cityscapes' colours, but for "static", and one more for licence plates (initLabels.m).
GTA5_PALETTE = {x.id: x.color for x in cityscapes_labels if x.id >= 0} | {
    4: (20, 20, 20),
    34: (0, 0, 142),
}
A2D2_CLASS_LIST = {
    "#ff0000": "Car 1", "#800000": "Car 4", "#cc99ff": "Pedestrian 1",
    "#00ff00": "Small vehicles 1", "#808000": "Curbstone", "#fff68f": "Poles",
    "#93fdc2": "Nature object", "#b496c8": "Sidewalk",
    "#ff00ff": "RD normal street", "#87ceff": "Sky", "#f1e6ff": "Buildings", "#352e52": "Rain dirt",
}  # fmt: skip
"""A part of class_list.json, as A2D2 publishes it."""


def save(path: Path, pixels: npt.NDArray[np.uint8], palette: Sequence[int] = ()) -> Path:
    """Write a picture; with a palette as a palette image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette(palette)
    picture.save(path)
    return path


def label_of(ids: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return a label that holds these ids, row by row, and then the last of them again."""
    height, width = SIZE_HW
    flat = [*ids, *itertools.repeat(ids[-1], height * width - len(ids))]
    return np.array(flat, dtype=np.uint8).reshape(height, width)


def _pictures() -> Iterator[npt.NDArray[np.uint8]]:
    """Yield RGB images no two of which are equal."""
    height, width = SIZE_HW
    for value in range(250):
        yield np.full((height, width, 3), value, dtype=np.uint8)


def _ids(kind: str) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the label of the first frame, then those of all others: road."""
    yield label_of(RAW_IDS[kind])
    while True:
        yield label_of([ROAD.get(kind, 7)])


def _write(root: Path, kind: str, names: Sequence[str], palette: Sequence[int] = ()) -> None:
    """Write files "image|label", the label of which may be missing."""
    pictures, labels = _pictures(), _ids(kind)
    for image, _, label in (name.partition("|") for name in names):
        save(root / image, next(pictures))
        if label:
            save(root / label, next(labels), palette)


def _flat(colours: dict[int, tuple[int, int, int]]) -> list[int]:
    return [value for i in range(len(colours)) for value in colours[i]]


def gta5(root: Path) -> None:
    """Three frames, as palette images."""
    names = [f"images/{n:05}.png|labels/{n:05}.png" for n in (1, 2, 24966)]
    _write(root, "gta5", names, _flat(GTA5_PALETTE))


def acdc(root: Path) -> None:
    """All splits of fog and night, two frames a drive; one reference frame has a label."""
    names = []
    for condition, drive in (("fog", "GOPR0475"), ("night", "GP010376")):
        for split, frame in itertools.product(("train", "val", "test"), (41, 61)):
            stem = f"{condition}/{split}/{drive}/{drive}_frame_{frame:06}"
            label = "" if split == "test" else f"gt/{stem}_gt_labelIds.png"
            names.append(f"rgb_anon/{stem}_rgb_anon.png|{label}")
            stem = f"{condition}/{split}_ref/{drive}/{drive}_frame_{frame:06}"
            names.append(f"rgb_anon/{stem}_rgb_ref_anon.png|")
    _write(root, "acdc", names)
    train = "gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_"
    for beside in ("labelTrainIds", "labelColor", "invIds", "invGray"):  # all are published
        save(root / f"{train}{beside}.png", label_of([0]))
    ref = "gt/fog/train_ref/GOPR0475/GOPR0475_frame_000041_gt_ref_labelTrainIds.png"
    save(root / ref, label_of([10]))


def dark_zurich(root: Path) -> None:
    """Unlabelled drives by day, twilight and night, and a labelled one by night."""
    val = "val/night/GOPR0356/GOPR0356_frame_000321"
    names = [f"rgb_anon/{val}_rgb_anon.png|gt/{val}_gt_labelIds.png"]
    names += [
        f"rgb_anon/train/{time}/{drive}/{drive}_frame_{frame:06}_rgb_anon.png|"
        for time, drive in (("day", "GOPR0345"), ("twilight", "GOPR0347"), ("night", "GOPR0351"))
        for frame in (1, 2)
    ]
    names.append("rgb_anon/val_ref/day/GOPR0356_ref/GOPR0356_frame_000321_ref_rgb_anon.png|")
    _write(root, "dark_zurich", names)
    for beside in ("labelTrainIds", "labelColor", "invIds", "invGray"):
        save(root / f"gt/{val}_gt_{beside}.png", label_of([0]))


def bdd100k(root: Path) -> None:
    """Two training images, one for validation and one of the test, which has no mask."""
    masks = "labels/sem_seg/masks"
    names = [
        f"images/10k/{split}/{stem}.jpg|{masks}/{split}/{stem}.png"
        for split, stem in (
            ("train", "0004a4c0-d4dff0ad"),
            ("train", "00054602-3bf57337"),
            ("val", "7d2f7975-e0c1c5a7"),
        )
    ]
    _write(root, "bdd100k", [*names, "images/10k/test/ac6d4f42-00000000.jpg|"])
    attributes = [
        {
            "name": "0004a4c0-d4dff0ad.jpg",
            "attributes": {"weather": "rainy", "scene": "city street", "timeofday": "night"},
        },
        {
            "name": "00054602-3bf57337.jpg",
            "attributes": {"weather": "undefined", "scene": "highway", "timeofday": "daytime"},
        },
    ]
    path = root / "labels/sem_seg/polygons/sem_seg_train.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(attributes))


def mapillary(root: Path) -> None:
    """As the package of v2.0 has labels of v1.2."""
    names = [
        f"{split}/images/{stem}.jpg|{split}/v1.2/labels/{stem}.png"
        for split, stem in (
            ("training", "--02xXoIJx38oxpPvkPrXw"),
            ("training", "zzXqbDRQxpLAwfDfhTTzSg"),
            ("validation", "-1TQY6IB9ysLn0zPf3aBYg"),
        )
    ]
    palette = [(7 * i + channel) % 256 for i in range(66) for channel in range(3)]
    _write(root, "mapillary", [*names, "testing/images/-0BwcIZ0pEl6mcpdTr1MfA.jpg|"], palette)
    save(root / "training/v2.0/labels/--02xXoIJx38oxpPvkPrXw.png", label_of([123]), palette)


IDDA_DOMAINS = ("T01_CN_A", "T01_HRN_B", "T07_CN_A")


def idda(root: Path, domains: Sequence[str] = IDDA_DOMAINS) -> None:
    """Two frames of each domain."""
    names = [
        f"{domain}/RGB/{number}_{domain}.jpg|{domain}/Semantic/{number}_{domain}.png"
        for domain in domains
        for number in (242662, 242710)
    ]
    _write(root, "idda", names)


def crosscity(root: Path) -> None:
    """Two cities; the frames of Train have no labels."""
    names = [
        f"{city}/Images/Test/pano_{frame:05}_2_0.png|{city}/Labels/Test/pano_{frame:05}_2_0_eval.png"
        for city, frame in (("Rome", 2), ("Tokyo", 22))
    ]
    names += [
        f"{city}/Images/Train/pano_{frame:05}_{turn}_180.jpg|"
        for city, frame, turn in (("Rome", 896, 0), ("Rome", 3751, 1), ("Tokyo", 178, 1))
    ]
    _write(root, "crosscity", names)


def idd(root: Path) -> None:
    """Two drives of train and one of val with level-3 ids; test has images only."""
    names = [
        f"leftImg8bit/{split}/{stem}_leftImg8bit.png|gtFine/{split}/{stem}_gtFine_labellevel3Ids.png"
        for split, stem in (
            ("train", "0/005506"), ("train", "0/024703"), ("train", "201/frame0029"),
            ("val", "119/903127"),
        )
    ]  # fmt: skip
    _write(root, "idd", [*names, "leftImg8bit/test/7/000001_leftImg8bit.png|"])
    polygons = root / "gtFine/train/0/005506_gtFine_polygons.json"
    polygons.write_text("{}")
    save(root / "gtFine/train/0/005506_gtFine_instancelevel3Ids.png", label_of([99]))


def kitti(root: Path) -> None:
    """Two images to train on, with all that is published beside labels, and one of the test."""
    names = [f"training/image_2/{n:06}_10.png|training/semantic/{n:06}_10.png" for n in range(2)]
    _write(root, "kitti", [*names, "testing/image_2/000000_10.png|"])
    save(root / "training/semantic_rgb/000000_10.png", next(_pictures()))
    save(root / "training/instance/000000_10.png", label_of([9]))


def wilddash(root: Path) -> None:
    """Two images of wd_public_02."""
    names = [f"images/{stem}.jpg|labels/{stem}.png" for stem in ("ad0000_100000", "zm0003_100000")]
    _write(root, "wilddash", names)
    (root / "wilddash_public.json").write_text("{}")


def selma(root: Path) -> None:
    """Two scenes; one has two cameras."""
    names = [
        f"{scene}/CAM_{place}/{scene}_{n}.jpg|{scene}/SEGCAM_{place}/{scene}_{n}.png"
        for scene, place, n in (
            ("Town01_Opt_ClearNight", "DESK", 5300274882951739),
            ("Town01_Opt_ClearNight", "LEFT", 5300274882951739),
            ("Town10HD_Opt_MidFoggyNoon", "DESK", 18438957881020911553),
        )
    ]
    _write(root, "selma", names)


def a2d2(root: Path) -> None:
    """Two scenes, coloured labels, and class_list.json beside them."""
    pictures = _pictures()
    colours = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in A2D2_CLASS_LIST]
    for scene, camera, number in (
        ("20180807_145028", "front_center", 91),
        ("20180807_145028", "side_left", 91),
        ("20181204_154421", "front_center", 1617),
    ):
        start, place = scene.replace("_", ""), camera.replace("_", "")
        for folder, what, pixels in (
            ("camera", "camera", next(pictures)),
            ("label", "label", np.array(colours, np.uint8)[label_of(range(len(colours)))]),
        ):
            name = f"{start}_{what}_{place}_{number:09}.png"
            save(root / scene / folder / f"cam_{camera}" / name, pixels)
    (root / "class_list.json").write_text(json.dumps(A2D2_CLASS_LIST))


MAKERS: dict[str, Callable[[Path], None]] = {
    "gta5": gta5, "acdc": acdc, "dark_zurich": dark_zurich, "bdd100k": bdd100k,
    "mapillary": mapillary, "idda": idda, "crosscity": crosscity, "idd": idd, "kitti": kitti,
    "wilddash": wilddash, "selma": selma, "a2d2": a2d2,
}  # fmt: skip
"""Kind of a source -> what writes one."""
