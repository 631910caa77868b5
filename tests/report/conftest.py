"""One fleet trained for real, with its two baselines, and one page of all of them, per session."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.experiments import tiny_experiment

from fleetseg.clients import open_fleet_data
from fleetseg.report import write_report
from fleetseg.runs import baselines
from fleetseg.runs.run import run_experiment


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `federated`, `centralised` and `alone/<vehicle>`, all over."""
    folder = tmp_path_factory.mktemp("fleet")
    drives = {"cities": ["amber", "birch"], "conditions": ["day"]}
    experiment = tiny_experiment(
        folder / "cache",
        data={
            "sources": [{**drives, "frames_per_drive": 2}],
            "evaluation": [{**drives, "frames_per_drive": 2, "split": "val"}],
        },
        federation={"rounds": 3},
        evaluation={"on_clients": True, "pictures": 2},
    )
    data = open_fleet_data(experiment)
    run_experiment(experiment, data, folder / "federated")
    pooled, one = baselines.centralised(experiment, data)
    run_experiment(pooled, one, folder / "centralised")
    name, alone, own = next(baselines.local_only(experiment, data))
    run_experiment(alone, own, folder / "alone" / name)
    return folder


@pytest.fixture(scope="session")
def page_file(fleet: Path) -> Path:
    """The page of the fleet beside its baselines."""
    runs = [fleet / name for name in ("federated", "centralised", "alone")]
    return write_report(runs, fleet / "report.html")
