"""What a tracker is asked for, and what it is told of the run that it is opened for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fleetseg.data.sample import Image_HWC


class Tracker(Protocol):
    """Takes the figures and pictures of rounds; steps ascend, and none is given twice.

    Every method may raise whatever its library does: the caller gives the tracker up then, and
    never the run.
    """

    @property
    def where(self) -> str:
        """Where a person finds what was tracked: a folder, an address."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take named figures of a step; slashes in names divide groups."""
        ...

    def image(self, step: int, name: str, image_HWC: Image_HWC) -> None:
        """Take a picture of a step whose figures it has."""
        ...

    def close(self) -> None:
        """Write what is left; a run that is resumed opens the same record again."""
        ...


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker is opened for."""

    folder: Path  # where a tracker keeps files of its own; it is there
    run: str  # tells runs apart, and is the same after a resume
    name: str  # what people call the run
    group: str  # what it has in common with others: seeds, baselines, a sweep
    project: str
    settings: Mapping[str, Any]  # the experiment, as nested plain values
    step: int = 0  # the last one that this tracker has from before; 0 = none
