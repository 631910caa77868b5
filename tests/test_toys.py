"""A method is one file and one dict line: each toy runs everywhere, and survives a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.experiments import tiny_experiment
from torch import nn

import fleetseg
from fleetseg.config import Experiment
from fleetseg.errors import ConfigError
from fleetseg.experiment_file import to_toml
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher

pytestmark = pytest.mark.usefixtures("toys")
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "server optimiser": {"federation": {"server_optimiser": "toy adam", "server_lr": 0.01}},
    "sampler": {"federation": {"sampler": "toy least", "cohort": 2}},
    "weights": {"federation": {"weights": "toy loss"}},
    "aggregator": {"federation": {"aggregator": "toy median"}},
    "sharing": {"federation": {"sharing": "toy norms stay"}},
    "objective": {"training": {"objective": "toy control"}},
    "fact": {"training": {"objective": "toy brightness"}},
    "publishing": {"federation": {"publishing": "toy mean"}},
    "supervision": {"training": {"supervision": "toy entropy"}},
    "sharing and objective": {
        "federation": {"sharing": "toy norms stay"},
        "training": {"objective": "toy control"},
    },
    "sharing and drift": {
        "federation": {
            "sharing": "toy norms stay", "server_optimiser": "drift", "weights": "uniform",
        },
        "training": {"objective": "dyn"},
    },
    "sharing and what is only told": {
        "federation": {"sharing": "toy norms stay", "uplink": "topk(20%)+int8"},
        "training": {"objective": "client momentum"},
    },
    "all in one": {
        "federation": {
            "server_optimiser": "toy adam", "server_lr": 0.01, "sampler": "toy least",
            "weights": "toy loss", "cohort": 3, "aggregator": "toy median",
            "sharing": "toy norms stay", "uplink": "topk(20%)+int8",
        },
        "training": {"objective": "toy control", "optimiser_state": "kept"},
    },
}  # fmt: skip
TOYS = [name for name in CHOICES if name != "plain"]


def toy_net() -> nn.Module:
    from tests.toys.network import ToyNet  # brings its lines along: not before a test wants them

    return ToyNet(11)


def experiment(name: str, cache: Path, kind: str = "inprocess") -> Experiment:
    choices = CHOICES[name]
    data: dict[str, Any] = {"label_space": "camvid11"}
    if "sharing" in choices.get("federation", {}):
        data["evaluation"] = []  # the server has no whole model to score
    return tiny_experiment(
        cache,
        data=data,
        training=choices.get("training", {}),
        federation={"rounds": 4, **choices.get("federation", {})},
        evaluation={"on_clients": True},
        engine={"kind": kind, "workers": 2},
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, fleetseg.Run]:
    """Each toy's run in this process, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("whole")

    class Runs(dict[str, fleetseg.Run]):
        def __missing__(self, name: str) -> fleetseg.Run:
            self[name] = fleetseg.run(
                experiment(name, cache), net=toy_net(), out=folder / name.replace(" ", "-")
            )
            return self[name]

    return Runs()


def scores_of(run: fleetseg.Run) -> dict[str, Any]:
    assert run.scores is not None
    return run.scores.to_dict()


@pytest.mark.parametrize("name", TOYS)
def test_it_makes_another_model(name: str, whole: dict[str, fleetseg.Run]) -> None:
    assert whole[name].model_sha256 != whole["plain"].model_sha256
    assert all(record.quorum for record in whole[name].records)


@pytest.mark.parametrize("name", TOYS)
def test_workers_make_the_same(
    name: str, whole: dict[str, fleetseg.Run], cache: Path, tmp_path: Path
) -> None:
    run = fleetseg.run(experiment(name, cache, "workers"), net=toy_net(), out=tmp_path / "run")
    assert run.model_sha256 == whole[name].model_sha256
    assert (
        run.scores.to_dict() == whole[name].scores.to_dict()
    )  # of the clients, with what each keeps


@pytest.mark.parametrize("kind", ["inprocess", "workers"])
@pytest.mark.parametrize("name", TOYS)
def test_after_a_crash_it_goes_on_to_the_same(
    name: str, kind: str, whole: dict[str, fleetseg.Run], cache: Path, tmp_path: Path
) -> None:
    def crash(record: RoundRecord) -> None:
        if record.round == 2:
            raise RuntimeError("power failure")

    described, net, out = experiment(name, cache, kind), toy_net(), tmp_path / "run"
    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(described, net=net, out=out, watcher=Watcher(round_closed=crash))
    resumed = fleetseg.run(described, net=net, out=out, resume=True)
    assert [record.round for record in resumed.records] == [1, 2, 3, 4]
    assert resumed.model_sha256 == whole[name].model_sha256


def test_what_stays_is_the_client_s_own(whole: dict[str, fleetseg.Run]) -> None:
    """Norm layers that are not shared stay with the server as they were, and differ by client."""
    kept = whole["sharing"].model_with(toy_net()).state_dict()
    first = toy_net()
    for key in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(kept[f"net.norm.{key}"], first.state_dict()[f"norm.{key}"])
    by_client = scores_of(whole["sharing"])["by_client"]
    assert len({scores["miou"] for scores in by_client.values()}) == len(by_client)


def test_a_preset_is_what_it_stands_for(tmp_path: Path) -> None:
    def read(text: str) -> Experiment:
        path = tmp_path / "experiment.toml"
        path.write_text(text)
        return fleetseg.load_experiment(path)

    named = read("method = 'toy'\n[federation]\nrounds = 2")
    assert (named.training.objective, named.federation.aggregator) == ("toy control", "toy median")
    assert (named.federation.rounds, named.training.lr) == (2, 0.02)
    own = read("method = 'toy'\n[training]\nlr = 0.5")  # an experiment's own fields win
    assert (own.training.objective, own.training.lr) == ("toy control", 0.5)
    assert read(to_toml(own)) == own
    spelt = own.model_copy(update={"method": ""})
    assert read(to_toml(spelt)).digest == own.digest
    with pytest.raises(ConfigError, match=r"unknown method 'toi'; .*Did you mean 'toy'\?"):
        read("method = 'toi'")
