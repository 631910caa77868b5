"""The available trackers, and whether their packages are installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec

from fleetseg.errors import MissingExtra, unknown_name
from fleetseg.tracking import mlflow, tensorboard, trackio, wandb
from fleetseg.tracking.tracker import Tracked, Tracker

TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": tensorboard.open_tracker,
    "wandb": wandb.open_tracker,
    "mlflow": mlflow.open_tracker,
    "trackio": trackio.open_tracker,
}
"""A tracker is named after the package that it needs, like the extra that installs it."""


def require_trackers(names: Iterable[str]) -> None:
    """Refuse unknown or uninstalled trackers before the run starts.

    Raises:
        ConfigError: no tracker has that name.
        MissingExtra: its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
        if name not in sys.modules and find_spec(name) is None:
            raise MissingExtra(name, name, f"tracking.to = ['{name}']")
