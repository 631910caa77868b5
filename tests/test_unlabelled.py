"""Labels of vehicles that are called unlabelled are never read: poisoned, the model is the same."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.experiments import tiny_experiment
from tests.pretrained import tiny_network
from torch import nn

import fleetseg
from fleetseg import rng
from fleetseg.config import Experiment, SourceConfig
from fleetseg.data.partition.manifest import Manifest
from fleetseg.data.synthetic.source import open_synthetic, write_dataset
from fleetseg.errors import ConfigError
from fleetseg.federation.rounds import Watcher
from fleetseg.models.build import wrap

UNLABELLED = ("birch", "coral")
"""Two vehicles of three; the third is labelled."""
EVERYTHING = {
    "teacher": "ema", "distil": 1.0, "entropy": 0.1, "max_square": 0.1, "rare_classes": 0.01,
}  # fmt: skip
OPENED: list[str] | None = None
"""Every file that this process opens, while somebody listens."""


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is not None and event == "open" and isinstance(arguments[0], str):
        OPENED.append(arguments[0])


sys.addaudithook(_listen)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """List the files that are opened, by Python or by PIL."""
    global OPENED
    OPENED = []
    try:
        yield OPENED
    finally:
        OPENED = None


def small_net() -> nn.Module:
    with rng.torch_default(0, purpose="unlabelled-test"):
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 11, 1)
        )
    return wrap(net, 11, head_prefixes=["3."])


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("painted") / "data"
    config = SourceConfig(cities=("amber", *UNLABELLED), conditions=("day",), frames_per_drive=4)
    write_dataset(open_synthetic(config, size_hw=(48, 64)), root)
    return root


@pytest.fixture
def root(painted: Path, tmp_path: Path) -> Path:
    """A data set that a test may spoil."""
    shutil.copytree(painted, tmp_path / "data")
    return tmp_path / "data"


def labels_of(root: Path, *cities: str) -> list[Path]:
    return sorted(p for city in cities for p in (root / "trainannot").glob(f"{city}*"))


def experiment(root: Path, cache: Path, **sections: dict[str, Any]) -> Experiment:
    data = {"sources": [{"kind": "camvid", "root": str(root)}], "evaluation": []}
    training = {"supervision": "self_training", "self_training": EVERYTHING, "lr": 0.05}
    fields: dict[str, dict[str, Any]] = {
        "data": data,
        "training": training,
        "partition": {"unlabelled": {"clients": [f"*{city}*" for city in UNLABELLED]}},
        "federation": {"rounds": 2},
    }
    for name, section in sections.items():
        fields[name] = {**fields.get(name, {}), **section}
    return tiny_experiment(cache, **fields)


def run(described: Experiment, out: Path) -> fleetseg.Run:
    return fleetseg.run(described, net=small_net(), out=out)


def shuffle(paths: list[Path]) -> None:
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)


def put_out_of_range(paths: list[Path]) -> None:
    for path in paths:
        Image.fromarray(np.full((48, 64), 200, np.uint8)).save(path)


def damage(paths: list[Path]) -> None:
    for path in paths:
        path.write_bytes(b"no picture")


def delete(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


POISONS: dict[str, Callable[[list[Path]], None]] = {
    "shuffled": shuffle,
    "out of range": put_out_of_range,
    "damaged": damage,
    "deleted": delete,
}
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "all terms": {},
    "held-out frames are scored": {
        "partition": {
            "unlabelled": {"clients": [f"*{city}*" for city in UNLABELLED]},
            "holdout": 0.25,
            "holdout_gap": 0,
        },
        "evaluation": {"on_clients": True},
        "federation": {"rounds": 2, "weights": "fedgau"},
    },
    "styles before the fleet, clusters by style, a teacher in each": {
        "pretrain": {
            "sources": [{"cities": ["delta"], "conditions": ["rain"], "frames_per_drive": 2}],
            "rounds": 1, "steps": 2, "style_probability": 1.0,
        },
        "training": {
            "supervision": "self_training", "lr": 0.05,
            "self_training": {**EVERYTHING, "teacher": "swa", "every": 1, "swa_start": 0.0},
            "style": {"kind": "fda", "probability": 0.0},
        },
        "federation": {"rounds": 2, "clustered_by": "styles",
                       "cluster_models": {"count": 2, "tensors": "head"}},
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=CHOICES)
def clean(
    request: pytest.FixtureRequest, painted: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """A name in CHOICES, and the digest of the model without poison."""
    folder = tmp_path_factory.mktemp("clean")
    described = experiment(painted, folder / "cache", **CHOICES[request.param])
    return request.param, run(described, folder / "run").model_sha256


@pytest.mark.parametrize("poison", POISONS)
def test_poisoned_labels_make_the_same_model(
    poison: str, clean: tuple[str, str], root: Path, tmp_path: Path
) -> None:
    choices, digest = clean
    POISONS[poison](labels_of(root, *UNLABELLED))
    poisoned = run(experiment(root, tmp_path / "cache", **CHOICES[choices]), tmp_path / "run")
    assert poisoned.model_sha256 == digest


def test_poisoned_labels_of_the_labelled_one_do_not(
    clean: tuple[str, str], root: Path, tmp_path: Path
) -> None:
    choices, digest = clean
    shuffle(labels_of(root, "amber"))
    poisoned = run(experiment(root, tmp_path / "cache", **CHOICES[choices]), tmp_path / "run")
    assert poisoned.model_sha256 != digest


def test_by_discrepancy_no_label_of_any_vehicle_counts(
    painted: Path, root: Path, tmp_path: Path
) -> None:
    """Those of the server's images do, and amber's are read for nothing but its class counts."""
    source = {"cities": ["delta"], "conditions": ["rain"], "frames_per_drive": 2}
    choices: dict[str, dict[str, Any]] = {
        "training": {"supervision": "discrepancy", "self_training": {}, "local_steps": 1},
        "pretrain": {"sources": [source], "rounds": 1, "steps": 1},
    }
    clean = run(experiment(painted, tmp_path / "clean", **choices), tmp_path / "run-0")
    shuffle(labels_of(root, "amber"))
    damage(labels_of(root, *UNLABELLED))
    poisoned = run(experiment(root, tmp_path / "cache", **choices), tmp_path / "run-1")
    assert poisoned.model_sha256 == clean.model_sha256
    choices["pretrain"]["sources"] = [{**source, "conditions": ["day"]}]
    other = run(experiment(root, tmp_path / "cache", **choices), tmp_path / "run-2")
    assert other.model_sha256 != clean.model_sha256


def test_no_label_file_of_theirs_is_opened(root: Path, tmp_path: Path) -> None:
    with opened_files() as files:
        run(experiment(root, tmp_path / "cache"), tmp_path / "run")
    touched = {Path(file) for file in files}
    assert touched.isdisjoint(labels_of(root, *UNLABELLED))
    assert touched.issuperset(labels_of(root, "amber"))


def test_only_labels_of_scored_frames_are_opened(root: Path, tmp_path: Path) -> None:
    choices = CHOICES["held-out frames are scored"]
    with opened_files() as files:
        scored = run(experiment(root, tmp_path / "cache", **choices), tmp_path / "run")
    last = [labels_of(root, city)[-1] for city in UNLABELLED]
    assert {Path(file) for file in files}.intersection(labels_of(root, *UNLABELLED)) == set(last)
    assert scored.scores is not None
    assert len(scored.scores.by_client) == 3


def test_who_is_called_unlabelled_is_written_down_and_kept(root: Path, tmp_path: Path) -> None:
    run(experiment(root, tmp_path / "cache"), tmp_path / "run")
    manifest = Manifest.read(tmp_path / "run" / "manifest.json")
    assert manifest.unlabelled == ("camvid-birch-day", "camvid-coral-day")
    entries = [e for name in manifest.unlabelled for e in manifest.clients[name]]
    assert {e.label_sha256 for e in entries} == {""}
    damage(labels_of(root, *UNLABELLED))
    listed = {"kind": "file", "file": str(tmp_path / "run" / "manifest.json"), "unlabelled": {}}
    again = experiment(root, tmp_path / "other", partition=listed)
    assert fleetseg.clients.open_fleet_data(again).manifest == manifest


def test_it_enrols_with_images_and_without_pixels(root: Path, tmp_path: Path) -> None:
    described = experiment(root, tmp_path / "cache")
    enrolled = fleetseg.clients.open_fleet_data(described).enrolled
    assert enrolled["camvid-birch-day"].num_images == 4
    assert enrolled["camvid-birch-day"].num_pixels == 0
    assert set(enrolled["camvid-birch-day"].histogram_C) == {0}
    assert enrolled["camvid-amber-day"].num_pixels > 0


def test_training_that_needs_labels_leaves_them_out(root: Path, tmp_path: Path) -> None:
    """The labelled vehicles alone: what a fleet without self-training can do."""
    damage(labels_of(root, *UNLABELLED))
    described = experiment(
        root, tmp_path / "cache", training={"supervision": "labels", "self_training": {}}
    )
    enrolled = fleetseg.clients.open_fleet_data(described).enrolled
    assert "declared unlabelled" in enrolled["camvid-birch-day"].abstains
    assert not enrolled["camvid-amber-day"].abstains


@pytest.mark.parametrize("kind", ["inprocess", "workers"])
def test_after_a_crash_it_goes_on_to_the_same(
    kind: str, clean: tuple[str, str], root: Path, tmp_path: Path
) -> None:
    def crash(record: fleetseg.RoundRecord) -> None:
        if record.round == 1:
            raise RuntimeError("power failure")

    choices, digest = clean
    engine = {"kind": kind, "workers": 2}
    described = experiment(root, tmp_path / "cache", engine=engine, **CHOICES[choices])
    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(
            described, net=small_net(), out=tmp_path / "run", watcher=Watcher(round_closed=crash)
        )
    resumed = fleetseg.run(described, net=small_net(), out=tmp_path / "run", resume=True)
    assert resumed.model_sha256 == digest


@pytest.mark.usefixtures("made_up_weights")
def test_the_feature_distance_goes_by_no_label_either(root: Path, tmp_path: Path) -> None:
    """With poisoned labels, through a crash and then in workers, the model is the same."""

    def crash(record: fleetseg.RoundRecord) -> None:
        if record.round == 1:
            raise RuntimeError("power failure")

    def run_into(name: str, weight: float = 0.1, **given: Any) -> str:
        training = {
            "feature_distance": {"weight": weight, "classes": ["road", "car"]},
            "self_training": {**EVERYTHING, "select": "class share"},
        }
        engine = {"kind": given.pop("kind", "inprocess"), "workers": 1}
        described = experiment(root, tmp_path / "cache", training=training, engine=engine)
        out = tmp_path / name
        return fleetseg.run(described, net=tiny_network(), out=out, **given).model_sha256

    clean = run_into("clean")
    assert run_into("without", weight=0.0) != clean
    shuffle(labels_of(root, *UNLABELLED))
    with pytest.raises(RuntimeError, match="power failure"):
        run_into("poisoned", watcher=Watcher(round_closed=crash))
    assert run_into("poisoned", resume=True, kind="workers") == clean


def test_a_pattern_that_fits_nobody_is_refused(root: Path, tmp_path: Path) -> None:
    described = experiment(
        root,
        tmp_path / "cache",
        partition={"unlabelled": {"clients": ["car-*"]}},
    )
    with pytest.raises(ConfigError, match="matches no vehicle, so labels would be read"):
        fleetseg.clients.open_fleet_data(described)


def test_own_pairs_cannot_be_called_unlabelled(tmp_path: Path) -> None:
    pair = (np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8))
    described = tiny_experiment(tmp_path, partition={"unlabelled": {"share": 1.0}})
    with pytest.raises(ConfigError, match="brings each image with its label"):
        fleetseg.run(described, clients={"car": [pair]}, out=tmp_path / "run", net=small_net())


def test_images_that_nobody_labelled_make_unlabelled_vehicles(
    real_data: Path, tmp_path: Path
) -> None:
    """IDD-Lite's test split has images alone."""
    source = {"kind": "idd_lite", "root": str(real_data / "idd_lite"), "split": "test", "limit": 9}
    described = tiny_experiment(
        tmp_path,
        data={"label_space": "idd7", "sources": [source], "evaluation": []},
        training={"supervision": "self_training"},
    )
    fleet_data = fleetseg.clients.open_fleet_data(described)
    assert sum(e.num_images for e in fleet_data.enrolled.values()) == 9
    assert {e.num_pixels for e in fleet_data.enrolled.values()} == {0}
    assert not any(e.abstains for e in fleet_data.enrolled.values())
