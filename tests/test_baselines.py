"""The centralised and local baselines: the same data, the same number of steps, nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engines.fleet import tiny_experiment

import fleetseg
from fleetseg.api import run_local
from fleetseg.baselines import centralised, federated_steps, local_only
from fleetseg.study import prepare


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_centralised_takes_the_steps_of_the_fleet(cache: Path) -> None:
    experiment = tiny_experiment(cache)
    study = prepare(experiment)
    alone, pooled = centralised(experiment, study)
    (client,) = pooled.clients.values()
    assert len(client.train) == sum(len(c.train) for c in study.clients.values())
    # 3 images in batches of 2 are two steps; so many vehicles, three rounds.
    expected = 2 * len(study.clients) * 3
    assert federated_steps(experiment, study) == expected
    assert alone.training.local_steps * alone.federation.rounds == expected
    assert alone.training.optimiser_state == "kept"


def test_centralised_run_is_scored_on_the_same_set(cache: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(cache)
    federated = fleetseg.run(experiment, out=tmp_path / "federated")
    pooled = fleetseg.run(experiment, out=tmp_path / "centralised", baseline="centralised")
    assert pooled.scores["pixels"] == federated.scores["pixels"]
    assert sum(r["steps"] for r in pooled.records) == sum(r["steps"] for r in federated.records)
    assert pooled.model_sha256 != federated.model_sha256


def test_centralised_resumes_with_its_moments(cache: Path, tmp_path: Path) -> None:
    """The optimiser's state is the client's own file: a resumed run must have it back."""
    experiment = tiny_experiment(cache)
    whole = fleetseg.run(experiment, out=tmp_path / "whole", baseline="centralised")

    class Enough(Exception):
        pass

    def stop(record: dict[str, object]) -> None:
        if record["round"] == 2:
            raise Enough

    from fleetseg.federation.rounds import Watcher

    out = tmp_path / "parted"
    with pytest.raises(Enough):
        fleetseg.run(
            experiment, out=out, baseline="centralised", watcher=Watcher(round_closed=stop)
        )
    resumed = fleetseg.run(experiment, out=out, baseline="centralised", resume=True)
    assert resumed.model_sha256 == whole.model_sha256


def test_local_gives_each_vehicle_its_own_model(cache: Path, tmp_path: Path) -> None:
    experiment = tiny_experiment(cache)
    study = prepare(experiment)
    assert [name for name, _, _ in local_only(experiment, study)] == list(study.clients)
    runs = run_local(experiment, out=tmp_path / "local")
    assert set(runs) == set(study.clients)
    assert len({run.model_sha256 for run in runs.values()}) == len(runs)
    assert all(run.miou is not None for run in runs.values())
