"""What a site holds, and the vehicles it stands for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.experiments import tiny_experiment

from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment, PartitionConfig, SourceConfig, UnlabelledConfig
from fleetseg.data.store.store import Picked
from fleetseg.errors import ConfigError, DataError
from fleetseg.experiment_file import to_toml
from fleetseg.fleet.vehicle.site_data import SiteData, open_clients

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
def fleet_data(experiment: Experiment) -> FleetData:
    return open_fleet_data(experiment)


names = st.text(min_size=1, max_size=8)
sources = st.builds(SourceConfig, kind=names, root=names, split=names, seed=st.integers(0, 9))


@given(
    st.builds(
        SiteData,
        names,
        st.lists(sources, max_size=2).map(tuple),
        names,
        st.lists(names, max_size=3).map(tuple),
        names,
    )
)
def test_site_data_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, site_data: SiteData
) -> None:
    path = tmp_path_factory.mktemp("kit") / "site-data.json"
    site_data.write(path)
    assert SiteData.read(path) == site_data


def test_a_site_with_data_of_its_own_is_one_vehicle(cache: Path, experiment: Experiment) -> None:
    ((name, client),) = open_clients(SiteData("depot", (AMBER,)), experiment).items()
    assert name == client.id == "depot"
    assert client.enrolment.num_images == 3
    image_HWC, label_HW = client.train[0]
    assert image_HWC.shape == (48, 64, 3)  # as the experiment wants it
    assert label_HW.shape == (48, 64)


def test_the_experiment_says_whether_images_stay_in_their_files(
    cache: Path, experiment: Experiment
) -> None:
    in_files = experiment.data.model_copy(update={"store": "files"})
    pairs = []
    for described in (experiment, experiment.model_copy(update={"data": in_files})):
        (client,) = open_clients(SiteData("depot", (AMBER,)), described).values()
        assert isinstance(client.train, Picked)
        assert (client.train.stores[0].files is not None) == (described.data.store == "files")
        pairs.append(client.train[0])
    np.testing.assert_array_equal(*(image_HWC for image_HWC, _ in pairs))


def test_several_sources_are_one_vehicle_s_too(cache: Path, experiment: Experiment) -> None:
    ((name, client),) = open_clients(SiteData("depot", (AMBER, BIRCH)), experiment).items()
    assert name == "depot"
    assert client.enrolment.num_images == 5


def test_the_experiment_says_how_much_is_held_out(cache: Path, experiment: Experiment) -> None:
    partition = PartitionConfig(holdout=0.34, holdout_gap=0)
    holding_out = experiment.model_copy(update={"partition": partition})
    (client,) = open_clients(SiteData("depot", (AMBER,)), holding_out).values()
    assert (len(client.train), len(client.test)) == (2, 1)


def loopback(experiment: Experiment, folder: Path, site: str, *vehicles: str) -> SiteData:
    path = folder / "experiment.toml"
    path.write_text(to_toml(experiment))
    return SiteData(site, vehicles=vehicles, experiment=str(path))


def test_vehicles_of_an_experiment_are_those_of_its_data(
    experiment: Experiment, fleet_data: FleetData, tmp_path: Path
) -> None:
    one, two = sorted(fleet_data.clients)[:2]
    held = open_clients(loopback(experiment, tmp_path, "site-1", two, one), experiment)
    assert list(held) == [two, one]
    for name, client in held.items():
        assert client.enrolment == fleet_data.clients[name].enrolment


def test_a_site_that_is_in_the_split_by_its_own_name(
    experiment: Experiment, fleet_data: FleetData, tmp_path: Path
) -> None:
    name = sorted(fleet_data.clients)[0]
    assert list(open_clients(loopback(experiment, tmp_path, name), experiment)) == [name]


@pytest.mark.parametrize(("site", "vehicles"), [("depot", ()), ("depot", ("stranger",))])
def test_who_is_not_in_the_split_is_told_who_is(
    experiment: Experiment, tmp_path: Path, site: str, vehicles: tuple[str, ...]
) -> None:
    site_data = loopback(experiment, tmp_path, site, *vehicles)
    with pytest.raises(DataError, match=r"no vehicle named .*amber-day.*--vehicle") as caught:
        open_clients(site_data, experiment)
    assert caught.value.what == f"no vehicle named '{(*vehicles, site)[0]}' in the split"


def test_the_manifest_of_a_run_says_who_holds_what(
    experiment: Experiment, fleet_data: FleetData, tmp_path: Path
) -> None:
    """A vehicle has its own pictures only, and the manifest that lists all."""
    path = tmp_path / "manifest.json"
    assert fleet_data.manifest is not None
    fleet_data.manifest.write(path)
    source = experiment.data.sources[0].model_copy(update={"cities": ("amber", "birch")})
    named = SiteData("depot", (source,), str(path), ("synthetic-birch-day",))
    ((name, client),) = open_clients(named, experiment).items()
    assert name == "synthetic-birch-day"
    assert client.enrolment == fleet_data.clients[name].enrolment
    only = source.model_copy(update={"cities": ("amber",)})
    ((name, client),) = open_clients(SiteData("depot", (only,), str(path)), experiment).items()
    assert (name, client.id) == ("depot", "depot")


def test_a_split_file_of_users_works_too(
    cache: Path, experiment: Experiment, tmp_path: Path
) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"user_data": {"zoe": {"x": ["nothing.png"]}}}))
    with pytest.raises(DataError, match=r"split\.json"):
        open_clients(SiteData("zoe", (AMBER,), str(path)), experiment)


def test_an_experiment_that_is_not_there(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        open_clients(SiteData("depot", experiment=str(tmp_path / "none.toml")), experiment)


def calling_unlabelled(experiment: Experiment, **rule: object) -> Experiment:
    unlabelled = UnlabelledConfig.model_validate(rule)
    partition = experiment.partition.model_copy(update={"unlabelled": unlabelled})
    return experiment.model_copy(update={"partition": partition})


@pytest.mark.parametrize(("pattern", "is_closed"), [("dep*", True), ("car-*", False)])
def test_a_site_goes_by_the_server_s_word_on_whose_labels_are_closed(
    pattern: str, is_closed: bool, cache: Path, experiment: Experiment
) -> None:
    described = calling_unlabelled(experiment, clients=[pattern])
    training = described.training.model_copy(update={"supervision": "self_training"})
    described = described.model_copy(update={"training": training})
    (client,) = open_clients(SiteData("depot", (AMBER,)), described).values()
    assert client.enrolment.num_images == 3
    assert (client.enrolment.num_pixels == 0) is is_closed
    assert (set(np.unique(client.train[0][1])) == {255}) is is_closed


def test_a_share_of_unknown_vehicles_cannot_be_drawn(cache: Path, experiment: Experiment) -> None:
    described = calling_unlabelled(experiment, share=0.5)
    with pytest.raises(ConfigError, match="this one knows only itself"):
        open_clients(SiteData("depot", (AMBER,)), described)
