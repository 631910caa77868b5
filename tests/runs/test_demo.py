"""The demo's experiment, and which vehicles and frames it shows."""

from __future__ import annotations

from fleetseg.experiment_file import make_experiment
from fleetseg.runs.demo import FIELDS, spread


def test_its_fleet_is_large_enough() -> None:
    experiment = make_experiment(FIELDS)
    (source,) = experiment.data.sources
    assert len(source.cities) >= 4
    assert len(source.cities) * len(source.conditions) >= 8


def test_spread_takes_the_ends_and_what_lies_between() -> None:
    assert spread(list("abcdefgh"), 4) == ["a", "c", "f", "h"]
    assert spread(["a", "b"], 5) == ["a", "b"]
    assert spread(["a", "b"], 1) == ["a"]
