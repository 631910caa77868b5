"""SELMA: rendered with CARLA, <Town>_<Weather><Time>/CAM_<place>/*.jpg and SEGCAM_<place>/*.png.

A scene is a town, one of nine weathers and noon, sunset or night: Town01_Opt_ClearNight. The
downloader puts scenes into a folder CV. Ids are mapped to Cityscapes' 19 by the table of SELMA's
README, which lacks motorcycles (104); these follow the table of the authors' later HyperFLAW
(02_adaptation/src/dataset/source/selma.py of github.com/LTTM/HyperFLAW).

Testolina et al.: SELMA: Semantic large-scale multimodal acquisitions in variable weather, daytime
and viewpoints, arXiv 2204.09788, https://scanlab.dei.unipd.it/selma-dataset/
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import CITYSCAPES_19, IGNORE, make_table
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample
from fleetseg.data.sources.walking import on_disk, subfolders

EXPECTED_LAYOUT = ("Town01_Opt_ClearNoon/CAM_DESK/*.jpg with SEGCAM_DESK/*.png, for each scene",)
_SCENE = re.compile(r"(Town\d+(?:HD)?_Opt(?:HD)?)_([A-Z][A-Za-z]*(?:Noon|Sunset|Night))")
_CAMERA, _LABELS = "CAM_", "SEGCAM_"
_TO_TRAIN = make_table({
    1: 2, 2: 4, 5: 5, 6: 0, 7: 0, 8: 1, 9: 8, 11: 3, 12: 7, 13: 10, 18: 6, 22: 9, 40: 11, 41: 12,
    100: 13, 101: 14, 102: 15, 103: 16, 104: 17, 105: 18,
})  # fmt: skip
"""SELMA ids -> cityscapes19."""
_CODE = LabelEncoding(
    table=_TO_TRAIN,
    known=(*range(23), 40, 41, *range(100, 106), IGNORE),
    expected="ids 0-22, 40, 41, 100-105 of SELMA",
    cure="SELMA's labels are the files of SEGCAM_*, with ids in one channel",
)


def splits(root: Path) -> tuple[str, ...]:
    """Return ("train",), as one set is published; () if it is not SELMA."""
    return ("train",) if _cameras(root) else ()


def open_selma(config: SourceConfig) -> Source:
    """Open SELMA; all of it is split "train". Weather and time = condition = domain.

    The camera's place (DESK, FRONT, ...) is the vehicle: nothing else distinguishes these views.

    Raises:
        ConfigError: no root given.
        DataError: not a SELMA folder, another split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    places = [
        Place(
            camera,
            camera.parent / f"{_LABELS}{camera.name.removeprefix(_CAMERA)}",
            image_suffix=".jpg",
            prefix=f"{camera.parent.name}/{camera.name}/",
        )
        for camera in _cameras(root)
    ]
    read = partial(read_sample, space=CITYSCAPES_19, code=_CODE)
    return published_source("selma", CITYSCAPES_19, config.split, places, _facts, read)


def _cameras(root: Path) -> list[Path]:
    scenes = [on_disk(root / name) for name in subfolders(root) if _SCENE.fullmatch(name)]
    return [
        scene / name for scene in scenes for name in subfolders(scene) if name.startswith(_CAMERA)
    ]


def _facts(stem: str) -> Facts:
    scene, camera, _ = stem.split("/", 2)
    match = _SCENE.fullmatch(scene)
    assert match is not None, "scenes are listed by this pattern"
    # Frame numbers are random waypoints, in no order.
    return Facts(
        domain=match[2],
        city=match[1],
        sequence=scene,
        condition=match[2],
        vehicle=camera.removeprefix(_CAMERA),
    )
