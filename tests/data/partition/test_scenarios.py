"""The table of scenarios: FedDrive's twelve with the counts of their files; rules that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.data.labels import LABEL_SPACES
from fleetseg.data.partition.leaf import read_leaf
from fleetseg.data.partition.rules import RULES
from fleetseg.data.partition.scenarios import SCENARIOS, Scenario, find_scenario
from fleetseg.data.sources import SOURCES
from fleetseg.errors import ConfigError

FEDDRIVE = {name: s for name, s in SCENARIOS.items() if name.startswith("feddrive-")}


def test_feddrives_twelve() -> None:
    shares = ("uniform", "heterogeneous", "class-imbalance")
    settings = ("cityscapes", "idda-country", "idda-rainy", "idda-bus")
    assert set(FEDDRIVE) == {f"feddrive-{data}-{share}" for data in settings for share in shares}


@pytest.mark.real_data
@pytest.mark.parametrize("name", FEDDRIVE)
def test_the_published_files_hold_what_is_said_of_them(name: str, real_data: Path) -> None:
    published = FEDDRIVE[name].published
    assert published is not None
    users = read_leaf(real_data / "splits" / "feddrive" / published.folder / "train")
    assert (len(users), sum(map(len, users.values()))) == (published.clients, published.images)
    assert FEDDRIVE[name].settings.clients == published.clients


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_rules_sources_and_label_spaces_exist(scenario: Scenario) -> None:
    assert scenario.rule in RULES
    assert scenario.kind in SOURCES
    assert scenario.label_space in LABEL_SPACES


def test_what_is_held_out_is_scored_and_not_trained_on() -> None:
    country, rainy = SCENARIOS["synthetic-country-uniform"], SCENARIOS["synthetic-rainy-uniform"]
    (scored,) = country.tests
    assert set(scored["cities"]) - set(country.train["cities"]) == {"ember"}
    (scored,) = rainy.tests
    assert set(scored["conditions"]) - set(rainy.train["conditions"]) == {"rain"}
    assert scored["split"] == "val"


def test_an_unknown_scenario_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown scenario 'feddrive-uniform'.*Did you mean '"):
        find_scenario("feddrive-uniform")
