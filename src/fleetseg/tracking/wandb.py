"""Weights & Biases: a run in a project; wandb's own settings decide the destination and account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetseg.data.sample import Image_HWC
from fleetseg.tracking.tracker import Tracked, Tracker


def open_tracker(tracked: Tracked) -> Tracker:
    """Start a run, or continue it: wandb itself ignores steps that it already has."""
    import wandb

    run = wandb.init(
        project=tracked.project,
        name=tracked.name,
        group=tracked.group,
        id=tracked.run,
        resume="allow",
        dir=str(tracked.folder),
        config=dict(tracked.settings),
        # The terminal belongs to our console: wandb neither captures it nor writes to it.
        settings=wandb.Settings(console="off", silent=True),
    )
    return _WandbRun(run, wandb.Image)


class _WandbRun:
    def __init__(self, run: Any, picture: Any) -> None:
        self._run, self._picture = run, picture
        self.where = str(run.dir if run.offline else run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, image_HWC: Image_HWC) -> None:
        self._run.log({name: self._picture(image_HWC)}, step=step)

    def close(self) -> None:
        self._run.finish()
