"""A2D2: <scene>/camera/cam_<place>/*_camera_<place>_<number>.png with <scene>/label/cam_<place>/.

Scenes are named after their start time, 20180807_145028. Labels use the 55 colours of
class_list.json, which lies beside the scenes: 38 classes, where touching instances of a class have
different colours ("Car 1" to "Car 4"). The file is checked against the colours known here.

Geyer et al.: A2D2: Audi autonomous driving dataset, arXiv 2004.06320, https://www.a2d2.audi
(README-SemSeg.txt of the download)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fleetseg.config import SourceConfig
from fleetseg.data.labels import A2D2_38, IGNORE, Colour, identity_table
from fleetseg.data.published_classes import A2D2_COLOURS
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root, last_number
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample
from fleetseg.data.sources.walking import on_disk, subfolders
from fleetseg.errors import DataError
from fleetseg.files import read_json
from fleetseg.text import listing

EXPECTED_LAYOUT = (
    "<YYYYMMDD_hhmmss>/camera/cam_<place>/*.png with <YYYYMMDD_hhmmss>/label/cam_<place>/",
)
CLASS_LIST = "class_list.json"
_SCENE = re.compile(r"[0-9]{8}_[0-9]{6}")
_COLOURS = tuple(
    (colour, train_id)
    for train_id, colours in enumerate(A2D2_COLOURS.values())
    for colour in colours
)
_CODE = LabelEncoding(
    table=identity_table(A2D2_38),
    known=(*range(A2D2_38.num_classes), IGNORE),
    expected="the 55 colours of A2D2",
    colours=tuple(colour for colour, _ in _COLOURS),
    colour_ids=tuple(train_id for _, train_id in _COLOURS),
    always_colours=True,
    cure="A2D2's colours must match exactly: use the published label, not resized or JPEG ones",
)


def splits(root: Path) -> tuple[str, ...]:
    """Return ("train",), as no split is published; () if it is not A2D2."""
    return ("train",) if _cameras(root) else ()


def open_a2d2(config: SourceConfig) -> Source:
    """Open A2D2; all of it is split "train". Scene = drive = domain, the camera is the vehicle.

    Raises:
        ConfigError: no root given.
        DataError: not an A2D2 folder, another split, no pictures, or a class_list.json with other
            classes or colours.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    _check_class_list(root / CLASS_LIST)
    places = [
        Place(
            camera,
            camera.parents[1] / "label" / camera.name,
            prefix=f"{camera.parents[1].name}/{camera.name}/",
            renamed=("_camera_", "_label_"),
        )
        for camera in _cameras(root)
    ]
    read = partial(read_sample, space=A2D2_38, code=_CODE)
    return published_source("a2d2", A2D2_38, config.split, places, _facts, read)


def _cameras(root: Path) -> list[Path]:
    scenes = [on_disk(root / name) for name in subfolders(root) if _SCENE.fullmatch(name)]
    return [
        scene / "camera" / name
        for scene in scenes
        for name in subfolders(scene / "camera")
        if name.startswith("cam_")
    ]


def _facts(stem: str) -> Facts:
    scene, camera, name = stem.split("/", 2)
    vehicle = camera.removeprefix("cam_")
    return Facts(domain=scene, sequence=scene, frame=last_number(name), vehicle=vehicle)


def _check_class_list(path: Path) -> None:
    if not path.is_file():
        return
    try:
        found: Any = read_json(path)
    except ValueError as error:
        raise DataError(f"not JSON ({error})", where=path, cure="Copy it again") from None
    if not isinstance(found, dict):
        raise DataError("no list of classes", where=path, expected='{"#ff0000": "Car 1", ...}')
    if wrong := _other_classes(found):
        raise DataError(
            "classes that are not A2D2's",
            where=path,
            got=listing(wrong, 8),
            expected=f"colours of the {A2D2_38.num_classes} classes known here",
            cure="Is this file from another version of the data set?",
        )


def _other_classes(found: Mapping[str, Any]) -> list[str]:
    known = {_hex(colour): name for name, colours in A2D2_COLOURS.items() for colour in colours}
    return [
        f"{colour} {name}"
        for colour, name in found.items()
        if known.get(colour.lower()) != re.sub(r" [0-9]+$", "", str(name))
    ]


def _hex(colour: Colour) -> str:
    return "#" + "".join(f"{value:02x}" for value in colour)
