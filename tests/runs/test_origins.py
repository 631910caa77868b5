"""Who set each value of an experiment: defaults, the preset, the file, and --set, in that order."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import load_experiment
from fleetseg.runs.origins import origins, toml_with_origins

TEXT = """
name = "x"
method = "fedprox"
[training]
lr = 0.01
[[data.sources]]
cities = ["amber"]
[[data.sources]]
cities = ["birch"]
frames_per_drive = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.toml"
    path.write_text(TEXT)
    return path


def said(text: str, key: str) -> list[str]:
    """What stands behind each line of a key."""
    lines = [line for line in text.splitlines() if line.startswith(f"{key} = ")]
    return [line.rpartition("  # ")[2] for line in lines]


def test_each_value_has_who_set_it(file: Path) -> None:
    text = toml_with_origins(file, ["training.lr=0.02", "seed=4"])
    assert said(text, "name")[0] == "file"
    assert said(text, "seed")[0] == "--set"
    assert said(text, "lr")[0] == "--set"  # over the file
    assert said(text, "objective") == ["preset fedprox"]
    assert said(text, "nesterov") == ["default"]
    assert said(text, "cities")[:2] == ["file", "file"]
    assert said(text, "frames_per_drive")[:2] == ["default", "file"]  # of two sources


def test_a_method_that_is_set_brings_its_preset(file: Path) -> None:
    found = origins(file, ["method=scaffold"])
    assert (found["method"], found["training.objective"]) == ("--set", "preset scaffold")


def test_the_file_wins_over_its_preset(file: Path) -> None:
    file.write_text(TEXT.replace("lr = 0.01", 'objective = "plain"'))
    assert origins(file)["training.objective"] == "file"


def test_what_is_written_is_the_experiment(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.toml"
    again.write_text(toml_with_origins(file, ["seed=4"]))
    assert load_experiment(again) == load_experiment(file, ["seed=4"])


def test_a_wrong_key_is_refused_with_the_nearest(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'training.lrr'.*Did you mean 'lr'"):
        toml_with_origins(file, ["training.lrr=1"])
    with pytest.raises(ConfigError, match=r"unknown key 'lr'.*Did you mean 'training.lr'"):
        toml_with_origins(file, ["lr=1"])
