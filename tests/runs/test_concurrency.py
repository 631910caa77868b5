"""In how many processes an experiment's clients train."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fleetseg.experiment_file import make_experiment
from fleetseg.learning.hardware import Hardware
from fleetseg.runs import concurrency as module
from fleetseg.runs.concurrency import concurrency, num_workers

CPU = Hardware(torch.device("cpu"), "fp32")


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "allowed_cores", lambda: 8)


@pytest.mark.parametrize(
    ("engine", "cohort", "workers", "at_a_time"),
    [
        ({"kind": "auto"}, 1.0, 8, 8),
        ({"kind": "auto"}, 3, 3, 3),  # no more processes than are asked in a round
        ({"kind": "auto"}, 1, 0, 1),  # one worker would train what this process can
        ({"kind": "auto", "workers": 2}, 1.0, 2, 2),
        ({"kind": "workers"}, 1, 1, 1),
        ({"kind": "workers", "workers": 50}, 1.0, 20, 20),
        ({"kind": "inprocess", "workers": 4}, 1.0, 0, 1),
        ({"kind": "fleet", "workers": 3}, 1.0, 0, 3),
        ({"kind": "fleet", "workers": 50}, 1.0, 0, 20),
    ],
)
def test_processes(engine: dict[str, Any], cohort: float, workers: int, at_a_time: int) -> None:
    experiment = make_experiment(
        {"engine": {"device": "cpu", **engine}, "federation": {"cohort": cohort}}
    )
    assert num_workers(experiment, 20, CPU, on_disk=True) == workers
    assert concurrency(experiment, 20) == at_a_time


def test_objects_of_a_users_own_stay_in_this_process_unless_workers_are_asked_for() -> None:
    for kind, workers in (("auto", 0), ("workers", 8)):
        experiment = make_experiment({"engine": {"kind": kind}})
        assert num_workers(experiment, 20, CPU, on_disk=False) == workers
