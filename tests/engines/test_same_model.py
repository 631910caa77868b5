"""One experiment, one model: whatever the engine, the number of workers or the order of arrival."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.federation import rounds
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher
from fleetseg.runs.run import run_experiment
from fleetseg.runs.setup import set_up


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def reference(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = fleetseg.run(tiny_experiment(cache), out=tmp_path_factory.mktemp("reference") / "run")
    return run.model_sha256


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_give_the_model_of_one_process(
    workers: int, cache: Path, reference: str, tmp_path: Path
) -> None:
    experiment = tiny_experiment(cache, engine={"kind": "workers", "workers": workers})
    assert fleetseg.run(experiment, out=tmp_path / "run").model_sha256 == reference


def test_weather_and_mixed_features_are_the_same_in_workers_and_after_a_crash(
    cache: Path, reference: str, tmp_path: Path
) -> None:
    """With a loader there, and none here."""
    training = {
        "batch_size": 2, "lr": 0.01,
        "weather": {"probability": 0.7}, "mixstyle": {"probability": 0.7},
        "fedfa": {"probability": 0.7},
    }  # fmt: skip
    runs = []
    for engine in ({"loaders": 0}, {"kind": "workers", "workers": 2, "loaders": 1}):
        experiment = tiny_experiment(cache, training=training, engine=engine)
        out = tmp_path / str(len(runs))
        runs.append(fleetseg.run(experiment, out=out).model_sha256)

    def crash(record: RoundRecord) -> None:
        if record.round == 2:
            raise RuntimeError("power failure")

    with pytest.raises(RuntimeError, match="power failure"):
        fleetseg.run(experiment, out=tmp_path / "c", watcher=Watcher(round_closed=crash))
    runs.append(fleetseg.run(experiment, out=tmp_path / "c", resume=True).model_sha256)
    assert runs == [runs[0]] * 3
    assert runs[0] != reference


def test_arrival_order_does_not_matter(
    cache: Path, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = InProcessEngine.ask

    def backwards(self, task, asks, deadline_s):  # type: ignore[no-untyped-def]
        return in_order(self, task, dict(reversed(asks.items())), deadline_s)

    monkeypatch.setattr(InProcessEngine, "ask", backwards)
    assert fleetseg.run(tiny_experiment(cache), out=tmp_path / "run").model_sha256 == reference


def test_another_seed_gives_another_model(cache: Path, reference: str, tmp_path: Path) -> None:
    experiment = tiny_experiment(cache).model_copy(update={"seed": 1})
    assert fleetseg.run(experiment, out=tmp_path / "run").model_sha256 != reference


def test_sha256_is_the_file_s_and_stands_in_the_last_line(
    cache: Path, reference: str, tmp_path: Path
) -> None:
    import hashlib

    run = fleetseg.run(tiny_experiment(cache), out=tmp_path / "run")
    content = (tmp_path / "run/model/model.safetensors").read_bytes()
    last = json.loads((tmp_path / "run/rounds.jsonl").read_text().splitlines()[-1])
    assert hashlib.sha256(content).hexdigest() == last["model_sha256"] == run.model_sha256


def test_clients_start_from_the_global_model(cache: Path, tmp_path: Path) -> None:
    """Pitfall 1 of prior systems: what clients get must be what the checkpoint holds."""
    experiment = tiny_experiment(cache)
    fleet_data = open_fleet_data(experiment)
    seen: list[str] = []
    in_order = InProcessEngine.ask

    def spy(self, task, asks, deadline_s):  # type: ignore[no-untyped-def]
        seen.append(next(iter(asks.values())).state.digest())
        return in_order(self, task, asks, deadline_s)

    first = fleetseg.run(experiment, out=tmp_path / "first")
    start = experiment.model_copy(
        update={"model": experiment.model.model_copy(update={"start": str(first.folder)})}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InProcessEngine, "ask", spy)
        run_experiment(start, fleet_data, tmp_path / "second")
    setup = set_up(start, fleet_data, tmp_path / "third", None, rounds.Watcher())
    from fleetseg.federation.tensors import read_state

    assert seen[0] == read_state(first.model(), setup.runtime.exchange.model).digest()
