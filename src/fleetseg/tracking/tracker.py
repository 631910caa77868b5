"""The interface of a tracker, and the facts of the run that it is opened for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fleetseg.data.sample import Image_HWC


class Tracker(Protocol):
    """Receives the figures and pictures of rounds; steps ascend, and none is sent twice.

    Every method may raise any error of its library: the caller then drops the tracker, and never
    the run.
    """

    @property
    def where(self) -> str:
        """Where to find the tracked data: a folder or an address."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Receive the named figures of a step; slashes in names separate groups."""
        ...

    def image(self, step: int, name: str, image_HWC: Image_HWC) -> None:
        """Receive a picture for a step whose figures were sent."""
        ...

    def close(self) -> None:
        """Flush; a resumed run opens the same record again."""
        ...


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker is opened for."""

    folder: Path  # an existing folder for the tracker's own files
    run: str  # identifies the run, also after a resume
    name: str  # display name of the run
    group: str  # what it shares with other runs: seeds, baselines, a sweep
    project: str
    settings: Mapping[str, Any]  # the experiment, as nested plain values
    step: int = 0  # the last step that this tracker has from before; 0 = none
