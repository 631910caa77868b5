"""What cannot be sent to a worker, or fails in each, is said and not taken for lost vehicles."""

from __future__ import annotations

import multiprocessing
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fleetseg
from fleetseg.engines import starting
from fleetseg.errors import EngineError, QuorumLost
from fleetseg.experiment_file import make_experiment

SPACE = fleetseg.LabelSpace("two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",))


def drive(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.Generator(np.random.Philox(seed))
    images = generator.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    return [(image, (image[..., 0] > 127).astype(np.uint8)) for image in images]


def run(out: Path, net: nn.Module, clients: Any = None, **federation: Any) -> fleetseg.Run:
    experiment = make_experiment(
        {
            "data": {"size": [16, 16]},
            "federation": {"rounds": 1, **federation},
            "engine": {"kind": "workers", "workers": 2, "precision": "fp32"},
        }
    )
    held = clients or {"a": drive(1), "b": drive(2)}
    return fleetseg.run(experiment, out=out, net=net, clients=held, space=SPACE)


def test_a_class_from_inside_a_function_is_named(tmp_path: Path) -> None:
    class Inner(nn.Conv2d):
        pass

    class Drive(list[Any]):
        pass

    with pytest.raises(EngineError, match=r"class test_a_class.*Inner is defined inside.*a module"):
        run(tmp_path / "net", Inner(3, 2, 1))
    with pytest.raises(EngineError, match=r"Drive is defined inside a function"):
        run(tmp_path / "data", nn.Conv2d(3, 2, 1), {"a": Drive(drive(1)), "b": drive(2)})


def test_what_a_worker_cannot_import_ends_the_run_before_round_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    here = types.ModuleType("only_here")
    here.Net = type("Net", (nn.Conv2d,), {"__module__": "only_here"})
    monkeypatch.setitem(sys.modules, "only_here", here)
    # One that is forked speaks where the process it is forked off did: long before this test.
    monkeypatch.setattr(starting, "_context", lambda on_cpu: multiprocessing.get_context("spawn"))
    with pytest.raises(EngineError, match=r"ended while it was starting.*exit code 1.*a module"):
        run(tmp_path / "run", here.Net(3, 2, 1))
    assert "No module named 'only_here'" in capfd.readouterr().err


class FailsInWorkers(nn.Conv2d):
    """Fails in every process but the one that has made it."""

    maker = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if FailsInWorkers.maker == 0:
            raise ValueError("only in\nworkers")
        return super().forward(images)


def test_the_exception_of_workers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FailsInWorkers, "maker", 1)
    done = run(tmp_path / "run", FailsInWorkers(3, 2, 1))
    assert done.reason == "no-update"
    (failure, _) = done.records[0].failures
    assert (failure.kind, failure.reason) == ("lost", "error")
    assert failure.detail == "ValueError: only in workers"
    assert "a says: ValueError: only in workers" in done.notes[-1]
    with pytest.raises(QuorumLost, match="a says: ValueError: only in workers"):
        run(tmp_path / "long", FailsInWorkers(3, 2, 1), rounds=9, max_failed_rounds=1)


class Plain(nn.Conv2d):
    pass


@pytest.mark.parametrize("trouble", ["class", "attribute"])
def test_auto_trains_in_this_process_what_cannot_be_sent(tmp_path: Path, trouble: str) -> None:
    class Inner(nn.Conv2d):
        pass

    net = (Inner if trouble == "class" else Plain)(3, 11, 1)
    net.callback = (lambda: None) if trouble == "attribute" else None
    painted = {"cities": ["amber", "birch"], "conditions": ["day"], "frames_per_drive": 2}
    experiment = make_experiment(
        {
            "data": {"size": [16, 24], "cache": str(tmp_path), "sources": [painted]},
            "federation": {"rounds": 1},
            "engine": {"kind": "auto", "workers": 2},
        }
    )
    told: list[str] = []
    watcher = fleetseg.federation.rounds.Watcher(status=told.append)
    done = fleetseg.run(experiment, out=tmp_path / "run", net=net, watcher=watcher)
    assert done.reason == "rounds"
    assert len(done.records[0].accepted) == 2
    assert "no workers, training in this process: " in told[1]
    assert ("defined inside a function" if trouble == "class" else "lambda") in told[1]
