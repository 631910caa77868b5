"""What a site holds, and the vehicles it stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.fleet import tiny_experiment

from fleetseg.config import Experiment, PartitionConfig, SourceConfig
from fleetseg.engines.holdings import Holdings, open_clients
from fleetseg.errors import ConfigError, DataError
from fleetseg.experiment_file import to_toml
from fleetseg.study import Study, prepare

AMBER = SourceConfig(cities=("amber",), conditions=("day",), frames_per_drive=3)
BIRCH = SourceConfig(cities=("birch",), conditions=("day",), frames_per_drive=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEETSEG_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def experiment(cache: Path) -> Experiment:
    return tiny_experiment(cache)


@pytest.fixture(scope="module")
def study(experiment: Experiment) -> Study:
    return prepare(experiment)


names = st.text(min_size=1, max_size=8)
sources = st.builds(SourceConfig, kind=names, root=names, split=names, seed=st.integers(0, 9))


@given(
    st.builds(
        Holdings,
        names,
        st.lists(sources, max_size=2).map(tuple),
        names,
        st.lists(names, max_size=3).map(tuple),
        names,
    )
)
def test_holdings_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, holdings: Holdings
) -> None:
    path = tmp_path_factory.mktemp("kit") / "holdings.json"
    holdings.write(path)
    assert Holdings.read(path) == holdings


def test_a_site_with_data_of_its_own_is_one_vehicle(cache: Path, experiment: Experiment) -> None:
    ((name, client),) = open_clients(Holdings("depot", (AMBER,)), experiment).items()
    assert name == client.id == "depot"
    assert client.enrolment.num_images == 3
    image_HWC, label_HW = client.train[0]
    assert image_HWC.shape == (48, 64, 3)  # as the experiment wants it
    assert label_HW.shape == (48, 64)


def test_several_sources_are_one_vehicle_s_too(cache: Path, experiment: Experiment) -> None:
    ((name, client),) = open_clients(Holdings("depot", (AMBER, BIRCH)), experiment).items()
    assert name == "depot"
    assert client.enrolment.num_images == 5


def test_the_experiment_says_how_much_is_held_out(cache: Path, experiment: Experiment) -> None:
    partition = PartitionConfig(holdout=0.34, holdout_gap=0)
    holding_out = experiment.model_copy(update={"partition": partition})
    (client,) = open_clients(Holdings("depot", (AMBER,)), holding_out).values()
    assert (len(client.train), len(client.test)) == (2, 1)


def loopback(experiment: Experiment, folder: Path, site: str, *vehicles: str) -> Holdings:
    path = folder / "experiment.toml"
    path.write_text(to_toml(experiment))
    return Holdings(site, vehicles=vehicles, experiment=str(path))


def test_vehicles_of_an_experiment_are_those_of_the_study(
    experiment: Experiment, study: Study, tmp_path: Path
) -> None:
    one, two = sorted(study.clients)[:2]
    held = open_clients(loopback(experiment, tmp_path, "site-1", two, one), experiment)
    assert list(held) == [two, one]
    for name, client in held.items():
        assert client.enrolment == study.clients[name].enrolment


def test_a_site_that_is_in_the_split_by_its_own_name(
    experiment: Experiment, study: Study, tmp_path: Path
) -> None:
    name = sorted(study.clients)[0]
    assert list(open_clients(loopback(experiment, tmp_path, name), experiment)) == [name]


@pytest.mark.parametrize(("site", "vehicles"), [("depot", ()), ("depot", ("stranger",))])
def test_who_is_not_in_the_split_is_told_who_is(
    experiment: Experiment, tmp_path: Path, site: str, vehicles: tuple[str, ...]
) -> None:
    holdings = loopback(experiment, tmp_path, site, *vehicles)
    with pytest.raises(DataError, match=r"nobody named .*amber-day.*--vehicle") as caught:
        open_clients(holdings, experiment)
    assert caught.value.what == f"nobody named '{(*vehicles, site)[0]}' in the split"


def test_the_manifest_of_a_run_says_who_holds_what(
    experiment: Experiment, study: Study, tmp_path: Path
) -> None:
    """A vehicle has its own pictures only, and the manifest that lists all."""
    path = tmp_path / "manifest.json"
    assert study.manifest is not None
    study.manifest.write(path)
    source = experiment.data.sources[0].model_copy(update={"cities": ("amber", "birch")})
    named = Holdings("depot", (source,), str(path), ("synthetic-birch-day",))
    ((name, client),) = open_clients(named, experiment).items()
    assert name == "synthetic-birch-day"
    assert client.enrolment == study.clients[name].enrolment
    only = source.model_copy(update={"cities": ("amber",)})
    ((name, client),) = open_clients(Holdings("depot", (only,), str(path)), experiment).items()
    assert (name, client.id) == ("depot", "depot")


def test_a_split_file_of_users_works_too(
    cache: Path, experiment: Experiment, tmp_path: Path
) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"user_data": {"zoe": {"x": ["nothing.png"]}}}))
    with pytest.raises(DataError, match=r"split\.json"):
        open_clients(Holdings("zoe", (AMBER,), str(path)), experiment)


def test_an_experiment_that_is_not_there(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        open_clients(Holdings("depot", experiment=str(tmp_path / "none.toml")), experiment)
