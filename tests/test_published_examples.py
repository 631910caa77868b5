"""The examples of published rows: each command in them runs, on a tiny folder in their layout.

Whoever has Cityscapes types the same command, without what is cut down here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.commands import DATA, commands_in, in_example, overrides_in
from tests.experiments import tiny_experiment
from tests.tiny_cityscapes import RAW_IDS, write_cityscapes, write_split
from typer.testing import CliRunner

import fleetseg
from fleetseg.cli.app import app
from fleetseg.clients import open_fleet_data
from fleetseg.config import HabitsConfig
from fleetseg.experiment_file import load_experiment
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.runs.folder import read_end, read_records
from fleetseg.runs.option_notes import notes_before

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for name in ("feddrive", "ladd", "fedseg") for path in (ROOT / "examples" / name).iterdir()
)
SHOWN = {path: commands_in(in_example(path.read_text())) for path in FILES}
ROWS = {
    Path(words[words.index("--out") + 1]).name: words
    for commands in SHOWN.values()
    for words in commands
    if words[0] == "run"
}
"""Name of the run folder -> the words of the command, for each published row."""
each_row = pytest.mark.parametrize("row", ROWS)
CITIES = {"aachen": 6, "ulm": 6}
SMALL = ["federation.rounds=2", "data.size=[64,128]", "training.crop=[32,64]",
         "training.batch_size=4", "engine.kind=inprocess", "engine.precision=fp32"]  # fmt: skip
FEW = {
    "feddrive": ["federation.cohort=2"],
    "fedseg": ["federation.cohort=2"],
    "fedseg-iid": ["federation.cohort=2", "partition.clients=3"],
}


@pytest.fixture(scope="module", autouse=True)
def _tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """$FLEETSEG_DATA as the examples want it, with FedDrive's and FedSeg's splits cut down."""
    data = tmp_path_factory.mktemp("published") / "data"
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEETSEG_DATA", str(data))
        patch.setenv("FLEETSEG_CACHE", str(data.parent / "cache"))
        make_class_split(data)
        yield


def make_class_split(data: Path) -> None:
    """Make FedSeg's class split as its example says, with a client for each class."""
    ((make, _),) = [commands for commands in SHOWN.values() if commands[0][0] == "scenario"]
    words = [word.replace(DATA, str(data)) for word in make]
    result = CliRunner().invoke(app, [*words, "--clients", str(len(RAW_IDS))])
    assert result.exit_code == 0, result.output


def described(row: str) -> fleetseg.Experiment:
    words = ROWS[row]
    return load_experiment(ROOT / words[1], overrides_in(words))


@each_row
def test_it_runs_and_is_scored(row: str, tmp_path: Path) -> None:
    if row.startswith("ladd"):
        pytest.importorskip("segmentation_models_pytorch")
    words = [*ROWS[row], "--quiet"]
    words[1] = str(ROOT / words[1])
    words[words.index("--out") + 1] = str(tmp_path / "run")
    small = [*SMALL, *FEW.get(row, FEW.get(row.partition("-")[0], []))]
    words += [word for setting in small for word in ("--set", setting)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    records = read_records(tmp_path / "run")
    assert [record["round"] for record in records] == [1, 2]
    assert "scores" in records[-1]
    end = read_end(tmp_path / "run")
    assert end is not None
    assert end["reason"] == "rounds"


@each_row
def test_every_option_in_it_has_an_effect(row: str) -> None:
    experiment, path = described(row), ROOT / ROWS[row][1]
    assert notes_before(experiment) == ()
    assert experiment.name == f"{path.parent.name}-{path.stem}"
    assert ROWS[row] in SHOWN[path]  # it is the command of the file that it stands in


@each_row
def test_the_published_protocol_is_in_it(row: str) -> None:
    """Rounds, vehicles of a round, local epochs, batch, learning rate: prior systems' tables."""
    experiment = described(row)
    expected = {
        "feddrive": (1600, 5, 2, 8 if "silobn" in row else 16, 0.05),
        "fedseg": (1500, 5, 2, 8, 0.05),
        "ladd": (100, 1.0, 1, 16, 0.05),
    }[row.partition("-")[0]]
    training, federation = experiment.training, experiment.federation
    steps = training.local_epochs, training.batch_size, training.lr
    assert (federation.rounds, federation.cohort, *steps) == expected
    assert (experiment.data.size, training.crop) == ((1024, 2048), (512, 1024))


def test_silobn_is_scored_as_published() -> None:
    rows = [row for row in ROWS if "silobn" in row]
    for evaluation in (described(row).evaluation for row in rows):
        assert (evaluation.norms, evaluation.batch_size, evaluation.every) == ("batch", 8, 5)
    assert {described(row).federation.sharing for row in rows} == {"silobn"}


def test_every_second_image_takes_on_colours_as_published() -> None:
    for row in (row for row in ROWS if row.startswith("feddrive")):
        style = described(row).training.style
        expected = ("lab", "image", 0.5) if row.endswith("lab") else ("none", "client", 0.5)
        assert (style.kind, style.per, style.probability) == expected


def test_each_client_of_the_class_split_labels_one_class() -> None:
    experiment = load_experiment(ROOT / ROWS["fedseg-classes"][1], ["data.size=[64,128]"])
    manifest = open_fleet_data(experiment).manifest
    assert manifest is not None
    assert len(manifest.clients) == len(manifest.label_subsets) == len(RAW_IDS)
    assert sum(map(len, manifest.clients.values())) == sum(CITIES.values())
    assert {len(classes) for classes in manifest.label_subsets.values()} == {1}


def test_there_is_a_command_for_each_row_that_is_supported() -> None:
    assert list(ROWS) == [
        "feddrive-class-imbalance",
        "feddrive-class-imbalance-silobn",
        "feddrive-class-imbalance-lab",
        "feddrive-class-imbalance-silobn-lab",
        "feddrive-heterogeneous",
        "feddrive-heterogeneous-silobn",
        "feddrive-heterogeneous-lab",
        "feddrive-heterogeneous-silobn-lab",
        "feddrive-uniform",
        "fedseg-classes",
        "fedseg-iid",
        "ladd-oracle",
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
    """Three images a vehicle in batches of two, two rounds."""
    training = {"weight_decay": 0.1, **sections.get("training", {})}
    return tiny_experiment(cache, **{**sections, "training": training, "federation": {"rounds": 2}})


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
    # Five vehicles, two rounds: of three images two are used, or each one twice.
    assert images == {"drop_last": 20, "doubled": 60}.get(name, 30)


def test_all_habits_end_in_one_model_in_workers_and_after_a_crash(
    cache: Path, tmp_path: Path
) -> None:
    def crash(record: RoundRecord) -> None:
        if record.round == 1:
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
