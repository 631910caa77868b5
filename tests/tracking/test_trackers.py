"""A tracker that is not there is told before the run, with what installs it."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from tests.tracking import fakes

from fleetseg.errors import ConfigError, MissingExtra
from fleetseg.experiment_file import make_experiment
from fleetseg.runs.choices import check_choices
from fleetseg.tracking import trackers
from fleetseg.tracking.trackers import TRACKERS, require_trackers

ROOT = Path(__file__).resolve().parents[2]


def test_an_unknown_tracker_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tensorboard'"):
        check_choices(make_experiment({"tracking": {"to": ["tensorbord"]}}))


def test_a_package_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(MissingExtra, match=r"'wandb'.*fleetseg\[wandb\]"):
        require_trackers(["wandb"])
    fakes.wandb(monkeypatch)
    require_trackers(["wandb"])


def test_every_tracker_has_an_extra_of_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(TRACKERS) <= set(project["optional-dependencies"])
