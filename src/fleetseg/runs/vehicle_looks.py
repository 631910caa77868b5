"""The average appearance of each vehicle's images: `vehicle_looks.json` in the run folder.

For vehicles simulated on this machine, a few of each one's images are read. The images of other
vehicles stay with them: nothing is known of these but what a method has them report, which is the
mean of their images' values (`federation.fedgau`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fleetseg.clients import FleetData
from fleetseg.data.sample import Pairs
from fleetseg.errors import FleetSegError
from fleetseg.federation.fedgau import IMAGE_GAUSSIAN, gaussian_of
from fleetseg.federation.messages import Enrolment, taking_part
from fleetseg.files import write_rows
from fleetseg.runs.kept_frames import spread

FILE = "vehicle_looks.json"
_OF_EACH = 8  # images read per vehicle
_OF_ALL = {"decoded": 2_048, "files": 64}  # in the whole fleet: decoding a file takes a while


@dataclass(frozen=True)
class Look:
    """The mean of some images of one vehicle, of values from 0 to 1."""

    client: str
    images: int  # images read; 0 = from the vehicle's own report
    brightness: float  # over all three channels
    colour_3: tuple[float, ...] = ()  # red, green, blue; empty = not known


def record_looks(folder: Path, fleet_data: FleetData, store: str) -> None:
    """Read a few training images of every vehicle simulated on this machine, once.

    Samples that the user passed as Python objects are left alone: reading them may cost anything.
    """
    there = [c for c in fleet_data.clients.values() if not c.enrolment.abstains and len(c.train)]
    number = min(_OF_EACH, _OF_ALL[store] // max(1, len(there)))
    if fleet_data.manifest is None or not number or (folder / FILE).is_file():
        return
    found = {}
    for client in there:
        try:
            found[client.id] = _look(client.id, client.train, number)
        except (FleetSegError, OSError):
            continue  # training meets that image as well, and reports it in more detail
    _write(folder, found)


def _look(name: str, train: Pairs, number: int) -> Look:
    chosen = spread(range(len(train)), number)
    sums = [train[index][0].mean(axis=(0, 1)) for index in chosen]
    mean_3 = np.mean(sums, axis=0) / 255
    colour_3 = tuple(round(float(value), 4) for value in mean_3)
    return Look(name, len(chosen), round(float(mean_3.mean()), 4), colour_3)


def record_reported(folder: Path, enrolled: Mapping[str, Enrolment]) -> None:
    """Add what vehicles reported about their images, for vehicles of which nothing is known yet."""
    known = {look.client: look for look in read_looks(folder)}
    told = {
        name: Look(name, 0, round(gaussian_of(each)[0] / 255, 4))
        for name, each in taking_part(enrolled).items()
        if IMAGE_GAUSSIAN in each.facts and name not in known
    }
    if told:
        _write(folder, {**known, **told})


def _write(folder: Path, looks: Mapping[str, Look]) -> None:
    write_rows(folder / FILE, [asdict(looks[name]) for name in sorted(looks)])


def read_looks(folder: Path) -> tuple[Look, ...]:
    """Read the appearance of vehicles' images; empty if it is not known."""
    try:
        rows = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return tuple(
            Look(row["client"], row["images"], float(row["brightness"]), tuple(row["colour_3"]))
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ()
