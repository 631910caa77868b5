"""A clash: when choices cannot work together, and why."""

from __future__ import annotations

from collections.abc import Callable

from fleetseg.config import Experiment

Clash = tuple[Callable[[Experiment], bool], str]
