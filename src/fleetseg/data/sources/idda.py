"""IDDA: rendered with CARLA, <Town>_<weather>_<vehicle>/RGB/*.jpg with Semantic/*.png.

The folder's name is the domain: seven towns (T01-T07), three weathers (CN clear noon, CS clear
sunset, HRN hard rain at noon), five vehicles (A, B, J, M, V). Ids 0-23 become FedDrive's 16 classes
(src/dataset/idda.py of github.com/Erosinho13/FedDrive): lines on the road are road; there are no
trucks, buses or trains.

Alberti et al.: IDDA: A large-scale multi-domain dataset for autonomous driving, RA-L 2020,
https://idda-dataset.github.io/home/
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from fleetseg.config import SourceConfig
from fleetseg.data.labels import IDDA_16, IGNORE, make_table
from fleetseg.data.sample import Source
from fleetseg.data.sources.indexing import check_split, existing_root
from fleetseg.data.sources.label_encoding import LabelEncoding
from fleetseg.data.sources.places import Facts, Place, published_source
from fleetseg.data.sources.reading import read_sample
from fleetseg.data.sources.walking import on_disk, subfolders

EXPECTED_LAYOUT = ("T01_CN_A/RGB/*.jpg with T01_CN_A/Semantic/*.png, for each domain",)
TOWNS = tuple(f"T0{n}" for n in range(1, 8))
WEATHERS = ("CN", "CS", "HRN")
VEHICLES = ("A", "B", "J", "M", "V")
_DOMAIN = re.compile(r"(T\d+)_([A-Z]+)_([A-Z])")
_RAW_IDS = 24
_TO_TRAIN = make_table({
    1: 2, 2: 4, 4: 11, 5: 5, 6: 0, 7: 0, 8: 1, 9: 8, 10: 13, 11: 3, 12: 7, 13: 6, 16: 15, 17: 14,
    18: 12, 19: 9, 20: 10,
})  # fmt: skip
"""IDDA ids -> idda16."""
_CODE = LabelEncoding(
    table=_TO_TRAIN,
    known=(*range(_RAW_IDS), IGNORE),
    expected="ids 0-23 of IDDA",
    cure="Labels must have ids in one channel, as in FedDrive's copy: convert others",
)


def splits(root: Path) -> tuple[str, ...]:
    """Return ("train",), as no split is published; () if it is not IDDA."""
    return ("train",) if _domains(root) else ()


def open_idda(config: SourceConfig) -> Source:
    """Open IDDA; all of it is split "train". Town = city, weather = condition.

    Use `cities`, `conditions` and `vehicles`, or a split file, to choose which images train and
    which are scored.

    Raises:
        ConfigError: no root given.
        DataError: not an IDDA folder, another split, or no pictures.
    """
    root = existing_root(config)
    check_split(config, root, splits(root), EXPECTED_LAYOUT)
    places = [
        Place(folder / "RGB", folder / "Semantic", image_suffix=".jpg", prefix=f"{folder.name}/")
        for folder in _domains(root)
    ]
    read = partial(read_sample, space=IDDA_16, code=_CODE)
    return published_source("idda", IDDA_16, config.split, places, _facts, read)


def _domains(root: Path) -> list[Path]:
    folders = (on_disk(root / name) for name in subfolders(root) if _DOMAIN.fullmatch(name))
    return [folder for folder in folders if (folder / "RGB").is_dir()]


def _facts(stem: str) -> Facts:
    domain, _, name = stem.partition("/")
    town, weather, vehicle = domain.split("_")
    number = name.partition("_")[0]
    return Facts(
        domain=domain,
        city=town,
        sequence=domain,
        frame=int(number) if number.isdigit() else 0,
        condition=weather,
        vehicle=vehicle,
    )
