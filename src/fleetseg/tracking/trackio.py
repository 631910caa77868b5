"""trackio: a run in a local project, or in a Space that TRACKIO_SPACE_ID names."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

from fleetseg.data.sample import Image_HWC
from fleetseg.tracking.tracker import Tracked, Tracker


def open_tracker(tracked: Tracked) -> Tracker:
    """Start a run, or continue it by its name, which must therefore be unique to the run."""
    import trackio

    name = f"{tracked.name}-{tracked.run[:6]}"
    with _off_standard_output():
        run = trackio.init(
            project=tracked.project,
            name=name,
            group=tracked.group,
            config=dict(tracked.settings),
            resume="allow",
        )
    return _TrackioRun(run, trackio.Image, f"project {tracked.project}, run {name}")


class _TrackioRun:
    def __init__(self, run: Any, picture: Any, where: str) -> None:
        self._run, self._picture, self.where = run, picture, where

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, image_HWC: Image_HWC) -> None:
        self._run.log({name: self._picture(image_HWC)}, step=step)

    def close(self) -> None:
        with _off_standard_output():
            self._run.finish()


def _off_standard_output() -> contextlib.AbstractContextManager[object]:
    """Redirect what trackio prints to standard error: standard output may be read as JSON lines."""
    return contextlib.redirect_stdout(sys.stderr)
