"""What clients reported at enrolment, kept in the run folder: `enrolled.json`.

The table of what may leave a client (federation.messages) lists images and pixels of each class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetseg.federation.messages import Enrolment, taking_part
from fleetseg.files import write_rows

FILE = "enrolled.json"


@dataclass(frozen=True)
class Enrolled:
    """One client's data, as the client reported them."""

    client: str
    images: int
    pixels: int  # labelled
    histogram_C: tuple[int, ...]  # labelled pixels of each class


def record_enrolled(folder: Path, enrolled: Mapping[str, Enrolment]) -> None:
    """Add the clients present to those that a run folder already knows."""
    known = {each.client: each for each in read_enrolled(folder)}
    told = dict(known)
    for name, each in taking_part(enrolled).items():
        histogram_C = tuple(map(int, each.histogram_C))
        told[name] = Enrolled(name, each.num_images, each.num_pixels, histogram_C)
    if told == known and (folder / FILE).is_file():
        return  # as in most rounds
    write_rows(folder / FILE, [asdict(told[name]) for name in sorted(told)])


def read_enrolled(folder: Path) -> tuple[Enrolled, ...]:
    """Read what clients reported; empty if an earlier version made the folder."""
    try:
        rows = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return tuple(
            Enrolled(row["client"], row["images"], row["pixels"], tuple(row["histogram_C"]))
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError):
        return ()
