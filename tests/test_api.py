"""The Python API with a user's own network and data, as README shows it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

import fleetseg
from fleetseg.errors import CheckpointError, ConfigError, DataError
from fleetseg.experiment_file import make_experiment

README = Path(__file__).resolve().parents[1] / "README.md"


def test_readme_runs_as_it_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Own network and data in at most 20 lines; then scores and predictions of the model."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    training, using = blocks
    assert len([line for line in training.splitlines() if line.strip()]) <= 20
    script = tmp_path / "own.py"
    script.write_text(training + using, encoding="utf-8")
    names = runpy.run_path(str(script))
    run, scored = names["run"], names["scored"]
    assert isinstance(run, fleetseg.Run)
    assert run.miou is not None
    assert isinstance(scored, fleetseg.Evaluated)
    assert scored.num_images == 12
    assert capsys.readouterr().out.count("(64, 64) uint8\n") == 12


def own_pairs(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(count))
    images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return [(image, (image[..., 0] > 127).astype(np.uint8)) for image in images]


SPACE = fleetseg.LabelSpace("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))


def test_own_network_learns_from_own_data(tmp_path: Path) -> None:
    experiment = make_experiment(
        {
            "data": {"size": [32, 32]},
            "federation": {"rounds": 8},
            "training": {"lr": 0.5, "batch_size": 4, "scale": [1, 1], "colour_jitter": 0.0},
            "engine": {"precision": "fp32"},
        }
    )
    run = fleetseg.run(
        experiment,
        out=tmp_path / "run",
        net=nn.Conv2d(3, 2, 1),
        clients={"a": own_pairs(8), "b": own_pairs(9)},
        evaluation={"test": own_pairs(10)},
        space=SPACE,
    )
    assert run.miou is not None
    assert run.miou > 0.8
    assert set(run.scores.to_dict()["iou"]) == {"dark", "bright"}
    loaded = fleetseg.load_model(tmp_path / "run", net=nn.Conv2d(3, 2, 1))
    assert loaded.space == SPACE


def test_a_network_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fleetseg.FleetSegError, match="shape"):
        fleetseg.run(
            make_experiment({"federation": {"rounds": 1}}),
            out=tmp_path / "run",
            net=nn.Conv2d(3, 5, 1),
            clients={"a": own_pairs(4)},
            evaluation={"test": own_pairs(2)},
            space=SPACE,
        )


def test_a_sample_that_cannot_be_used_is_named_at_the_door(tmp_path: Path) -> None:
    """Never silently a wrong class, and never a vehicle that is silently left out."""
    bad = own_pairs(4)
    bad[2] = (bad[2][0], np.full_like(bad[2][1], 7))
    short = own_pairs(4)
    short[1] = (short[1][0], short[1][1][:16])
    for given, words in (
        ({"clients": {"good": own_pairs(4), "bad": bad}}, "vehicle 'bad', sample 2: .*got 7 "),
        ({"clients": {7: short}}, "vehicle '7', sample 1: .*got label 32x16, expected 32x32"),
        (
            {"clients": {"good": own_pairs(4)}, "evaluation": {"t": bad}},
            "evaluation set 't', sample 2: label ids",
        ),
    ):
        with pytest.raises(DataError, match=words):
            fleetseg.run(
                make_experiment({"data": {"size": [32, 32]}}),
                out=tmp_path / "run",
                net=nn.Conv2d(3, 2, 1),
                space=SPACE,
                **given,
            )
    assert not (tmp_path / "run").exists()


SHORT = make_experiment(
    {
        "data": {"size": [32, 32]},
        "federation": {"rounds": 1},
        "engine": {"precision": "fp32"},
        "training": {"scale": [1, 1], "colour_jitter": 0.0},
    }
)


class Tensors(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The same as `own_pairs`, as most torch data sets have it."""

    def __init__(self, count: int) -> None:
        self.pairs = own_pairs(count)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_HWC, label_HW = self.pairs[index]
        image_CHW = torch.from_numpy(image_HWC).permute(2, 0, 1) / 255
        return image_CHW, torch.from_numpy(label_HW).long()[None]


def test_the_same_data_in_another_holder_give_the_same_model(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 2, 1)
    plain, others = (
        fleetseg.run(SHORT, out=tmp_path / name, net=net, space=SPACE, **given)
        for name, given in {
            "plain": {
                "clients": {"1": own_pairs(4), "2": own_pairs(5)},
                "evaluation": {"3": own_pairs(3)},
            },
            "others": {
                "clients": {1: Tensors(4), 2: [(Image.fromarray(i), m) for i, m in own_pairs(5)]},
                "evaluation": {3: Tensors(3)},
            },
        }.items()
    )
    assert plain.model_sha256 == others.model_sha256
    scores = [run.scores.to_dict() for run in (plain, others)]
    for one in scores:
        del one["protocol"]["sets"]  # they are told apart by their raw arrays, and those differ
    assert scores[0] == scores[1]


def test_each_vehicle_alone_on_own_data(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 2, 1)
    given = {
        "net": net,
        "clients": {"a": own_pairs(4), "../b": own_pairs(5)},
        "evaluation": {"test": own_pairs(3)},
        "space": SPACE,
    }
    runs = fleetseg.run_local(SHORT, out=tmp_path / "local", **given)
    assert list(runs) == ["../b", "a"] or list(runs) == ["a", "../b"]
    assert {run.folder.parent for run in runs.values()} == {tmp_path / "local"}
    assert runs["a"].folder.name == "a"
    assert runs["a"].model_sha256 != runs["../b"].model_sha256
    assert all(run.miou is not None for run in runs.values())
    with pytest.raises(ConfigError, match=r"Use fleetseg\.run_local"):
        fleetseg.run(SHORT, out=tmp_path / "run", baseline="local", **given)


PAINTED = {
    "data": {
        "size": [32, 48],
        "sources": [{"conditions": ["day"], "cities": ["amber"], "frames_per_drive": 2}],
        "evaluation": [
            {
                "split": "val",
                "cities": ["birch"],
                "conditions": ["day", "rain"],
                "frames_per_drive": 1,
            }
        ],
    },
    "federation": {"rounds": 1},
    "engine": {"kind": "inprocess"},
}


def test_own_data_and_an_experiments_data_go_together(tmp_path: Path) -> None:
    """What is not given comes from the experiment; nothing that is given is passed over."""
    experiment = make_experiment({**PAINTED, "data": {**PAINTED["data"], "cache": str(tmp_path)}})
    street = [(image, label % 2) for image, label in own_pairs(2)]
    net = nn.Conv2d(3, 11, 1)
    mine = {"mine": street, "more": street}
    run = fleetseg.run(experiment, out=tmp_path / "a", net=net, evaluation=mine)
    assert set(run.scores.to_dict()["by_domain"]) == {"mine", "more"}
    assert "me" not in run.records[0].cohort
    run = fleetseg.run(experiment, out=tmp_path / "b", net=net, clients={"me": street})
    assert run.records[0].cohort == ("me",)
    assert set(run.scores.to_dict()["by_domain"]) == {"birch-day", "birch-rain"}
    with pytest.raises(ConfigError, match="space= gives the meaning of ids in your own data"):
        fleetseg.run(experiment, out=tmp_path / "c", net=net, space=SPACE)
    with pytest.raises(ConfigError, match=r"got dark, bright \(two\), expected sky, building"):
        fleetseg.run(
            experiment, out=tmp_path / "c", net=net, space=SPACE, evaluation={"mine": street}
        )


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    options = {
        "net": nn.Conv2d(3, 2, 1),
        "clients": {"a": own_pairs(4)},
        "space": SPACE,
        "out": tmp_path / "run",
    }
    experiment = make_experiment({"federation": {"rounds": 1}, "data": {"size": [32, 32]}})
    fleetseg.run(experiment, **options)
    with pytest.raises(CheckpointError, match="already holds a run"):
        fleetseg.run(experiment, **options)


def test_arguments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown baseline 'central'.*Did you mean 'central"):
        fleetseg.run(make_experiment({}), out=tmp_path / "run", baseline="central")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not an experiment; got dict"):
        fleetseg.run({"name": "x"}, out=tmp_path / "run")  # type: ignore[arg-type]


def test_unknown_loss_is_said_before_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'focal'"):
        fleetseg.run(make_experiment({"training": {"loss": "ce+focall"}}), out=tmp_path / "run")


def test_nan_in_one_client_does_not_reach_the_model(tmp_path: Path) -> None:
    class Exploding(nn.Conv2d):
        """Gives NaN for a picture that is all white."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) / (images.amin(dim=(1, 2, 3), keepdim=True) < 1)

    white = [(np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32), np.uint8))] * 4
    run = fleetseg.run(
        make_experiment(
            {
                "federation": {"rounds": 1},
                "data": {"size": [32, 32]},
                "training": {"scale": [1, 1], "colour_jitter": 0.0},
                "engine": {"precision": "fp32"},
            }
        ),
        out=tmp_path / "run",
        net=Exploding(3, 2, 1),
        clients={"good": own_pairs(4), "white": white},
        evaluation={"test": own_pairs(2)},
        space=SPACE,
    )
    (failure,) = run.records[0].failures
    assert (failure.client_id, failure.kind, failure.reason) == (
        "white",
        "refused",
        "non-finite",
    )
    weights = run.model_with(Exploding(3, 2, 1)).state_dict()
    assert all(torch.isfinite(w).all() for w in weights.values())


def test_no_client_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((DataError, fleetseg.FleetSegError)):
        fleetseg.run(
            make_experiment({"federation": {"rounds": 1}}),
            out=tmp_path / "run",
            net=nn.Conv2d(3, 2, 1),
            clients={},
            space=SPACE,
        )


def test_the_final_model_is_scored_wherever_a_run_stops(tmp_path: Path) -> None:
    """A budget may end a run in a round whose turn to be scored it was not."""
    run = fleetseg.run(
        make_experiment(
            {
                "federation": {"rounds": 9},
                "data": {"size": [32, 32]},
                "evaluation": {"every": 2},
                "stop": {"megabytes": 0.05},
            }
        ),
        out=tmp_path / "run",
        net=nn.Conv2d(3, 2, 1),
        clients={"a": own_pairs(4)},
        evaluation={"test": own_pairs(2)},
        space=SPACE,
    )
    assert run.reason == "megabytes"
    assert len(run.records) % 2 == 1
    assert run.records[-1].scored is None
    assert run.miou is not None


def test_too_few_vehicles_end_the_run_with_the_model_as_it_was(tmp_path: Path) -> None:
    from fleetseg.errors import QuorumLost
    from fleetseg.runs.folder import read_end

    with pytest.raises(QuorumLost, match="2 rounds in a row"):
        fleetseg.run(
            make_experiment(
                {
                    "federation": {
                        "rounds": 9,
                        "max_failed_rounds": 2,
                        "faults": {"dropout": 1.0},
                    },
                    "data": {"size": [32, 32]},
                }
            ),
            out=tmp_path / "run",
            net=nn.Conv2d(3, 2, 1),
            clients={"a": own_pairs(4), "b": own_pairs(5)},
            space=SPACE,
        )
    end = read_end(tmp_path / "run")
    assert end is not None
    assert (end["reason"], end["round"]) == ("quorum-lost", 2)
    assert fleetseg.load_model(tmp_path / "run", net=nn.Conv2d(3, 2, 1))
