"""The demo: three kinds of runs and a picture, and nothing overwritten."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from PIL import Image

from fleetseg.console.demo import run_demo
from fleetseg.errors import CheckpointError
from fleetseg.runs.demo import FIELDS
from fleetseg.runs.folder import read_experiment, read_records


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo with everything in it but the time to learn."""
    folder = tmp_path_factory.mktemp("demo")
    fields = copy.deepcopy(FIELDS)
    fields["data"]["size"] = [64, 96]
    fields["data"]["cache"] = str(folder / "cache")
    for part in (*fields["data"]["sources"], *fields["data"]["evaluation"]):
        part.update(cities=["amber", "birch"], frames_per_drive=2)
    fields["federation"]["rounds"] = 2
    fields["engine"] = {"kind": "inprocess"}
    assert run_demo(folder / "out", fields) == 0
    return folder / "out"


def test_it_leaves_three_kinds_of_runs(demo: Path) -> None:
    assert (demo / "federated" / "model" / "model.safetensors").is_file()
    assert (demo / "centralised" / "model" / "model.safetensors").is_file()
    assert len(list((demo / "local").iterdir())) == 3
    assert read_experiment(demo / "federated").name == "demo"
    assert len(read_records(demo / "federated")) == 2


def test_it_draws_a_picture(demo: Path) -> None:
    with Image.open(demo / "predictions.png") as picture:
        assert picture.width > 5 * 200  # image, truth and three predictions


def test_it_does_not_overwrite_another(demo: Path) -> None:
    with pytest.raises(CheckpointError, match="already holds a demo"):
        run_demo(demo)
