"""The examples of published rows: each runs from its file on a tiny folder in the layout they name.

Whoever has Cityscapes types the same command, without what is cut down here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.experiments import tiny_experiment
from tests.tiny_cityscapes import write_cityscapes, write_split
from typer.testing import CliRunner

import fleetseg
from fleetseg.cli.app import app
from fleetseg.config import HabitsConfig
from fleetseg.experiment_file import load_experiment
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.runs.folder import read_end, read_records
from fleetseg.runs.option_notes import notes_before

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
FILES = sorted(
    path for name in ("feddrive", "ladd", "fedseg") for path in (EXAMPLES / name).iterdir()
)
each_example = pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
CITIES = {"aachen": 6, "ulm": 6}
SMALL = ["federation.rounds=2", "data.size=[64,128]", "training.crop=[32,64]",
         "training.batch_size=4", "engine.kind=inprocess", "engine.precision=fp32"]  # fmt: skip


@pytest.fixture
def tiny_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$FLEETSEG_DATA as CONTRIBUTING describes it, with FedDrive's split files cut down."""
    data = tmp_path / "data"
    write_cityscapes(data / "cityscapes", CITIES)
    write_cityscapes(data / "cityscapes", {"frankfurt": 2}, "val")
    splits = data / "splits" / "feddrive" / "cityscapes"
    by_city = {
        f"{city}{k}": [(city, 3 * k + n) for n in range(3)] for city in CITIES for k in (0, 1)
    }
    mixed = {f"client_{k}": [(city, 2 * k) for city in CITIES] for k in range(3)}
    for name, clients in {"uniform": mixed, "class_imbalance": mixed}.items():
        write_split(splits / name / "train" / "all_data_0.json", clients)
    for k, (client, frames) in enumerate(by_city.items()):
        write_split(splits / "heterogeneous" / "train" / f"all_data_{k}.json", {client: frames})
    monkeypatch.setenv("FLEETSEG_DATA", str(data))
    monkeypatch.setenv("FLEETSEG_CACHE", str(tmp_path / "cache"))
    return data


@each_example
def test_it_runs_and_is_scored(path: Path, tiny_data: Path, tmp_path: Path) -> None:
    if path.parent.name == "ladd":
        pytest.importorskip("segmentation_models_pytorch")
    out = tmp_path / "run"
    words = ["run", str(path), "--out", str(out), "--quiet"]
    extra = {"ladd": ["--baseline", "centralised"], "fedseg": ["--set", "partition.clients=3"]}
    words += [word for setting in SMALL for word in ("--set", setting)]
    if path.parent.name == "feddrive":
        words += ["--set", "federation.cohort=2"]
    result = CliRunner().invoke(app, [*words, *extra.get(path.parent.name, [])])
    assert result.exit_code == 0, result.output
    records = read_records(out)
    assert [record["round"] for record in records] == [1, 2]
    assert "scores" in records[-1]
    end = read_end(out)
    assert end is not None
    assert end["reason"] == "rounds"


@each_example
def test_every_option_in_it_has_an_effect(path: Path, tiny_data: Path) -> None:
    experiment = load_experiment(path)
    assert notes_before(experiment) == ()
    assert experiment.name == f"{path.parent.name}-{path.stem}"
    lines = path.read_text().splitlines()
    command = f"fleetseg run examples/{path.parent.name}/{path.name}"
    assert any(command in line for line in lines)


@each_example
def test_the_published_protocol_is_in_it(path: Path, tiny_data: Path) -> None:
    """Rounds, vehicles of a round, local epochs, batch, learning rate: prior systems' tables."""
    experiment = load_experiment(path)
    expected = {
        "feddrive": (1600, 5, 2, 16, 0.05),
        "fedseg": (1500, 5, 2, 8, 0.05),
        "ladd": (100, 1.0, 1, 16, 0.05),
    }[path.parent.name]
    training, federation = experiment.training, experiment.federation
    steps = training.local_epochs, training.batch_size, training.lr
    assert (federation.rounds, federation.cohort, *steps) == expected
    assert (experiment.data.size, training.crop) == ((1024, 2048), (512, 1024))


def test_there_is_an_example_for_each_row_that_is_supported() -> None:
    assert [f"{p.parent.name}/{p.stem}" for p in FILES] == [
        "feddrive/cityscapes-class-imbalance",
        "feddrive/cityscapes-heterogeneous",
        "feddrive/cityscapes-uniform",
        "fedseg/cityscapes-iid",
        "ladd/cityscapes-oracle",
    ]


# What those files switch on, in whole runs

SWITCHES: dict[str, dict[str, dict[str, Any]]] = {
    "drop_last": {"training": {"habits": {"drop_last": True}}},
    "same_order": {"training": {"habits": {"same_order": True}}},
    "doubled": {"training": {"habits": {"doubled": True}}},
    "unfiltered_crop": {"training": {"habits": {"unfiltered_crop": True}}},
    "decay_all": {"training": {"habits": {"decay_all": True}}},
    "ohem_feddrive": {"training": {"loss": "ohem_feddrive"}},
    "ohem_fedseg": {"training": {"loss": "ohem_fedseg"}},
    "poly_feddrive": {"training": {"schedule": "poly_feddrive"}},
    "step_fedseg": {"training": {"schedule": "step_fedseg"}},
    "half": {"model": {"normalisation": "half"}},
    "cityscapes": {"model": {"normalisation": "cityscapes"}},
}  # fmt: skip
ALL_HABITS = {name: True for name in HabitsConfig.model_fields}


def switched(cache: Path, **sections: dict[str, Any]) -> fleetseg.Experiment:
    """Three images a vehicle in batches of two, three rounds."""
    training = {"weight_decay": 0.1, **sections.get("training", {})}
    return tiny_experiment(cache, **{**sections, "training": training})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def usual(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> fleetseg.Run:
    return fleetseg.run(switched(cache), out=tmp_path_factory.mktemp("usual"))


def test_all_habits_are_among_the_switches() -> None:
    assert ALL_HABITS.keys() <= SWITCHES.keys()


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_makes_another_model(
    name: str, cache: Path, usual: fleetseg.Run, tmp_path: Path
) -> None:
    run = fleetseg.run(switched(cache, **SWITCHES[name]), out=tmp_path / "run")
    assert run.model_sha256 != usual.model_sha256
    images = sum(record.images_seen for record in run.records)
    # Five vehicles, three rounds: of three images two are used, or each one twice.
    assert images == {"drop_last": 30, "doubled": 90}.get(name, 45)


def test_all_habits_end_in_one_model_in_workers_and_after_a_crash(
    cache: Path, tmp_path: Path
) -> None:
    def crash(record: RoundRecord) -> None:
        if record.round == 2:
            raise RuntimeError("power failure")

    habits = {"habits": ALL_HABITS, "local_epochs": 2}
    described = switched(cache, training=habits)
    run = fleetseg.run(described, out=tmp_path / "run")
    elsewhere = switched(
        cache, training=habits, engine={"kind": "workers", "workers": 2, "loaders": 2}
    )
    assert fleetseg.run(elsewhere, out=tmp_path / "workers").model_sha256 == run.model_sha256
    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(described, out=tmp_path / "crash", watcher=Watcher(round_closed=crash))
    resumed = fleetseg.run(described, out=tmp_path / "crash", resume=True)
    assert resumed.model_sha256 == run.model_sha256
