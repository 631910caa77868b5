"""Where a run's figures and pictures are sent, besides its folder."""

from __future__ import annotations

from pydantic import Field

from fleetseg.config.section import Section


class TrackingConfig(Section):
    """Copies of what a run records; not part of the experiment's digest."""

    to: tuple[str, ...] = ()  # names in fleetseg.tracking.trackers.TRACKERS
    project: str = Field(default="fleetseg", min_length=1)  # in MLflow, the experiment
    pictures: int = Field(default=3, ge=0)  # how many of the frames of evaluation.pictures
