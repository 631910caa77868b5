"""A folder with classes of its own: checked, partitioned, run, resumed and evaluated alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import fleetseg
from fleetseg.cli.app import app
from fleetseg.runs.folder import read_end

CLASSES = 'name = "depot"\nclasses = ["floor", "person"]\ncritical = ["person"]\n'
EXPERIMENT = """
name = "depot"
[data]
label_space = "own"
size = [64, 64]
cache = "cache"
sources = [{kind = "folder", root = "depot", split = "train"}]
evaluation = [{kind = "folder", root = "depot", split = "val"}]
[federation]
rounds = 2
[training]
batch_size = 2
[engine]
precision = "fp32"
"""


@pytest.fixture
def depot(tmp_path: Path) -> Path:
    """An experiment beside two splits; two vehicles in train."""
    generator = np.random.Generator(np.random.Philox(1))
    for stem in ("train/images/a/1", "train/images/a/2", "train/images/b/1", "val/images/c/1"):
        image_HWC = generator.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        image, mask = (tmp_path / "depot" / f"{stem}.png" for stem in (stem, masks(stem)))
        image.parent.mkdir(parents=True, exist_ok=True)
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HWC).save(image)
        Image.fromarray((image_HWC[..., 0] > 127).astype(np.uint8)).save(mask)
    (tmp_path / "depot" / "classes.toml").write_text(CLASSES)
    (tmp_path / "x.toml").write_text(EXPERIMENT)
    return tmp_path


def masks(stem: str) -> str:
    return stem.replace("images", "masks")


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def text_of(result: Result) -> str:
    return " ".join(result.output.split())


def test_the_way_from_check_to_evaluate(depot: Path) -> None:
    checked = call("data", "check", depot / "depot", "--json")
    assert checked.exit_code == 0, checked.output
    shown = call("partition", depot / "x.toml", "--json")
    assert json.loads(shown.stdout)["classes"] == ["floor", "person"]
    runs = [depot / "inprocess", depot / "workers"]
    for out in runs:
        done = call("run", depot / "x.toml", "--engine", out.name, "--workers", "2", "--out", out)
        assert done.exit_code == 0, done.output
        assert "person" in done.output
    first, second = (read_end(out) for out in runs)
    assert first is not None
    assert second is not None
    assert first["model_sha256"] == second["model_sha256"]
    assert set(first["scores"]["iou"]) == {"floor", "person"}
    space = fleetseg.load_model(runs[0]).space
    assert space is not None
    assert (space.classes, space.critical) == (("floor", "person"), ("person",))
    for words in (
        ("--dataset", "folder", "--root", depot / "depot", "--split", "val"),
        ("--experiment", depot / "x.toml"),
        ("--experiment", runs[0] / "experiment.toml"),
    ):
        scored = call("evaluate", runs[0], *words, "--json")
        assert scored.exit_code == 0, scored.output
        assert json.loads(scored.stdout)["miou"] == first["scores"]["miou"]


def test_a_resumed_run_has_its_classes_still(depot: Path) -> None:
    out = depot / "run"
    short = ("--engine", "inprocess", "--out", out)
    assert call("run", depot / "x.toml", *short).exit_code == 0
    again = call("run", "--resume", "--out", out, "--engine", "inprocess")
    assert again.exit_code == 0, again.output
    (depot / "depot" / "classes.toml").write_text(CLASSES.replace("floor", "ground"))
    changed = call("run", "--resume", "--out", out, "--engine", "inprocess")
    assert changed.exit_code == 1
    assert "the classes have changed since the run was started; got ground, person" in text_of(
        changed
    )


def test_without_own_the_error_tells_how(depot: Path) -> None:
    text = EXPERIMENT.replace('label_space = "own"\n', "")
    (depot / "x.toml").write_text(text)
    refused = call("run", depot / "x.toml", "--out", depot / "run")
    assert refused.exit_code == 1
    assert "or 'own' for the classes of the source's classes.toml" in text_of(refused)
