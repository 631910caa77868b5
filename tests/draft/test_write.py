"""Experiments drafted from tiny folders in several layouts: each can run, as a dry run shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.draft.folders import own_folder
from tests.published_layouts import MAKERS
from tests.tiny_cityscapes import write_cityscapes

from fleetseg.config import SourceConfig
from fleetseg.data.synthetic.source import open_synthetic, write_dataset
from fleetseg.draft import write
from fleetseg.draft.choose import Machine, choose
from fleetseg.draft.look import look
from fleetseg.draft.write import draft, experiment_text
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import load_experiment, make_experiment_from_text
from fleetseg.runs.rehearsal import rehearse

SMALL = Machine(2, "cpu", has_pretrained=False)


@pytest.fixture(autouse=True)
def _a_small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "this_machine", lambda: SMALL)


def camvid(root: Path) -> None:
    for split, cities in (("train", ("amber", "birch", "coral")), ("val", ("amber",))):
        painted = SourceConfig(split=split, cities=cities, conditions=("day",), frames_per_drive=2)
        written = root.with_name(split)
        write_dataset(open_synthetic(painted, (64, 96)), written)
        for folder in written.iterdir():
            root.mkdir(exist_ok=True)
            folder.rename(root / folder.name)


def cities(root: Path) -> None:
    write_cityscapes(root, {"aachen": 2, "bonn": 2, "ulm": 2})
    write_cityscapes(root, {"frankfurt": 1}, "val")


def binary(root: Path) -> None:
    own_folder(root, ids=(0, 255), frames=5)


LAYOUTS: dict[str, tuple[Callable[[Path], object], str, int, bool]] = {
    "camvid": (camvid, "natural", 3, True),
    "cityscapes": (cities, "natural", 3, True),
    "own binary masks": (binary, "natural", 2, False),
    "gta5": (MAKERS["gta5"], "iid", 1, False),
    "one image": (lambda root: own_folder(root, ids=(0, 1), frames=1), "natural", 1, False),
}
"""Name -> what writes it, the partition's kind, the vehicles, and whether a split is scored."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_can_run(layout: str, tmp_path: Path) -> None:
    make, kind, clients, is_scored = LAYOUTS[layout]
    make(tmp_path / "data")
    drafted = draft(tmp_path / "data", out=tmp_path / "first.toml")
    experiment = load_experiment(drafted.file, [f"data.cache={tmp_path / 'cache'}"])
    assert experiment.partition.kind == kind
    assert bool(experiment.data.evaluation) is is_scored
    found = rehearse(experiment)
    assert (found.clients, bool(found.scored)) == (clients, is_scored)


def test_painted_streets_can_be_loaded(tmp_path: Path) -> None:
    drafted = draft(Path(), kind="synthetic", out=tmp_path / "painted.toml")
    experiment = load_experiment(drafted.file)
    assert experiment.data.sources[0].cities == ("amber", "birch", "coral", "delta")
    assert experiment.data.evaluation[0].split == "val"


def test_a_folder_below_the_file_is_told_relative_to_it(tmp_path: Path) -> None:
    own_folder(tmp_path / "here" / "data", ids=(0, 1))
    inside = draft(tmp_path / "here" / "data", out=tmp_path / "here" / "a.toml")
    outside = draft(tmp_path / "here" / "data", out=tmp_path / "there" / "b.toml")
    assert '\nroot = "data"\n' in inside.file.read_text()
    assert f'\nroot = "{tmp_path / "here" / "data"}"\n' in outside.file.read_text()
    roots = {load_experiment(one.file).data.sources[0].root for one in (inside, outside)}
    assert roots == {str(tmp_path / "here" / "data")}


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    own_folder(tmp_path / "data", ids=(0, 1))
    (tmp_path / "a.toml").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        draft(tmp_path / "data", out=tmp_path / "a.toml")
    assert (tmp_path / "a.toml").read_text() == "mine"
    draft(tmp_path / "data", out=tmp_path / "a.toml", force=True)
    assert load_experiment(tmp_path / "a.toml").name == "data"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_with_weights_and_a_gpu_the_file_says_so(device: str, tmp_path: Path) -> None:
    own_folder(tmp_path / "a data set!", ids=(0, 1), frames=8)
    found, machine = look(tmp_path / "a data set!"), Machine(8, device, has_pretrained=True)
    text = experiment_text(found, choose(found, machine), machine, name="x", base=tmp_path)
    experiment = make_experiment_from_text(text, where="drafted")
    assert experiment.model.pretrained == "imagenet"
    assert experiment.training.batch_size == (4 if device == "cpu" else 8)
    assert ("on the GPU" in text) is (device == "cuda")


def test_a_name_is_made_of_a_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own_folder(tmp_path / "my drives (2)", ids=(0, 1))
    assert draft(tmp_path / "my drives (2)").file == Path("my-drives-2.toml")
