"""Who takes part at all: patterns of names, and what is said of those that fit nobody."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.config import Experiment, FederationConfig
from fleetseg.data.partition.manifest import Manifest
from fleetseg.errors import ConfigError
from fleetseg.federation.admission import (
    idle_patterns,
    left_out,
    require_somebody,
    why_left_out,
)
from fleetseg.federation.messages import taking_part
from fleetseg.runs import baselines

NAMES = ("car-1", "car-2", "van-1", "VAN-2", "a[1]")


@pytest.mark.parametrize(
    ("only", "exclude", "gone"),
    [
        ((), (), ()),
        (("car-*",), (), ("VAN-2", "a[1]", "van-1")),
        ((), ("car-?",), ("car-1", "car-2")),
        (("car-*", "van-1"), ("*-1",), ("VAN-2", "a[1]", "car-1", "van-1")),
        (("van-*",), (), ("VAN-2", "a[1]", "car-1", "car-2")),  # letters as they are
        (("a[[]1]",), (), ("VAN-2", "car-1", "car-2", "van-1")),
        (("car",), (), tuple(sorted(NAMES))),  # the whole name, not a part of it
    ],
)
def test_patterns(only: tuple[str, ...], exclude: tuple[str, ...], gone: tuple[str, ...]) -> None:
    assert left_out(NAMES, FederationConfig(only=only, exclude=exclude)) == gone


def test_nobody_left_is_refused_with_the_names_there_are() -> None:
    settings = FederationConfig(only=("car-*",), exclude=("*",))
    with pytest.raises(
        ConfigError, match=r"leave out every vehicle; .*exclude = \['\*'\].*VAN-2, a\[1\]"
    ):
        require_somebody(NAMES, settings)
    require_somebody((), settings)  # of no client at all, something else is said
    require_somebody(NAMES, FederationConfig())


def test_a_pattern_that_fits_nobody_is_told() -> None:
    settings = FederationConfig(only=("car-*", "cra-*"), exclude=("x",))
    assert idle_patterns(NAMES, settings) == [
        "federation.only: no vehicle matches 'cra-*'",
        "federation.exclude: no vehicle matches 'x'",
    ]


def experiment(cache: Path, **federation: object) -> Experiment:
    cities = [{"conditions": ["day"], "cities": ["amber", "birch", "coral"], "frames_per_drive": 2}]
    return tiny_experiment(cache, data={"sources": cities}, federation={"rounds": 2, **federation})


def test_a_run_goes_on_without_them_as_if_they_were_not_there(tmp_path: Path) -> None:
    cache, amber = tmp_path / "cache", "synthetic-amber-day"
    without = experiment(cache, exclude=["*-amber-*", "typo"])
    run = fleetseg.run(without, out=tmp_path / "run")
    assert [record.cohort for record in run.records] == [
        ("synthetic-birch-day", "synthetic-coral-day")
    ] * 2
    assert f"client {amber} abstains: left out by federation.exclude" in run.notes
    assert "federation.exclude: no vehicle matches 'typo'" in run.notes
    manifest = Manifest.read(tmp_path / "run" / "manifest.json")
    assert manifest.left_out == (amber,)
    assert sorted(manifest.clients) == [amber, "synthetic-birch-day", "synthetic-coral-day"]
    assert sorted(manifest.taking_part().clients) == ["synthetic-birch-day", "synthetic-coral-day"]
    two = experiment(cache).model_copy(
        update={"data": without.data.model_copy(update={"sources": (
            without.data.sources[0].model_copy(update={"cities": ("birch", "coral")}),
        )})}
    )  # fmt: skip
    assert fleetseg.run(two, out=tmp_path / "two").model_sha256 == run.model_sha256
    again = fleetseg.run(without, out=tmp_path / "run", resume=True)
    assert again.model_sha256 == run.model_sha256


def test_baselines_train_on_those_who_take_part(tmp_path: Path) -> None:
    described = experiment(tmp_path / "cache", only=["*-birch-*"])
    fleet_data = open_fleet_data(described)
    assert list(taking_part(fleet_data.enrolled)) == ["synthetic-birch-day"]
    _, pooled = baselines.centralised(described, fleet_data)
    assert pooled.clients["centralised"].enrolment.num_images == 2
    assert [name for name, _, _ in baselines.local_only(described, fleet_data)] == [
        "synthetic-birch-day"
    ]
    assert fleet_data.manifest is not None
    assert fleet_data.manifest.left_out == ("synthetic-amber-day", "synthetic-coral-day")


def test_a_user_s_own_clients_are_left_out_too(tmp_path: Path) -> None:
    described = experiment(tmp_path / "cache", exclude=["b"])
    fleet_data = open_fleet_data(experiment(tmp_path / "cache"))
    pairs = fleet_data.clients["synthetic-amber-day"].train
    samples = [pairs[k] for k in range(len(pairs))]
    from fleetseg.own_data import fleet_data_of_pairs

    own = fleet_data_of_pairs(
        described, fleet_data.space, {"a": samples, "b": samples}, {"t": samples}
    )
    assert list(taking_part(own.enrolled)) == ["a"]
    with pytest.raises(ConfigError, match="leave out every vehicle"):
        fleet_data_of_pairs(described, fleet_data.space, {"b": samples}, {"t": samples})


def test_the_default_leaves_nobody_out() -> None:
    assert [why_left_out(name, FederationConfig()) for name in NAMES] == [""] * 5
