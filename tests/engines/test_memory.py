"""A client that runs out of memory loses its own work; the others, and the run, go on."""

from __future__ import annotations

import json
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engines.greedy import Pairs, network, pictures, raise_out_of_memory

import fleetseg
from fleetseg.data.labels import label_space
from fleetseg.engines import inprocess, workers
from fleetseg.engines.shared import SharedStates
from fleetseg.errors import ModelError, OutOfMemory, QuorumLost
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import layout_of, read_state
from fleetseg.learning.hardware import Hardware
from fleetseg.models.build import wrap
from fleetseg.own_data import fleet_data_of_pairs
from fleetseg.runs import run as run_module

PLAIN = {"batch_size": 2, "scale": [1, 1], "flip": False, "colour_jitter": 0.0}


def experiment(kind: str = "inprocess", **federation: Any) -> Any:
    return make_experiment(
        {
            "data": {"size": [16, 16]},
            "training": PLAIN,
            "federation": {"rounds": 2, "quorum": 0.5, **federation},
            "engine": {"kind": kind, "workers": 2, "device": "cpu", "precision": "fp32"},
            "evaluation": {"every": 0},
        }
    )


def fleet(*greedy: str) -> dict[str, Pairs]:
    names = ("car-a", "car-b", "car-c")
    return {n: pictures(seed, bright=n in greedy) for seed, n in enumerate(names)}


@pytest.mark.parametrize("kind", ["inprocess", "workers"])
def test_one_client_s_lack_of_memory_is_its_own(kind: str, tmp_path: Path) -> None:
    freed = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inprocess, "free", freed.append)
        run = fleetseg.run(
            experiment(kind), clients=fleet("car-b"), net=network(), out=tmp_path / "run"
        )
    assert run.reason == "rounds"
    for record in run.records:
        assert record.accepted == ("car-a", "car-c")
        (failure,) = record.failures
        assert (failure.client_id, failure.kind) == ("car-b", "lost")
        assert failure.reason == "out-of-memory"
        assert "Tried to allocate 20.00 GiB" in failure.detail
        assert "smaller training.batch_size or training.crop" in failure.detail
    if kind == "inprocess":
        assert freed == [torch.device("cpu")] * 2


def test_the_others_train_as_they_would_without_it(tmp_path: Path) -> None:
    """What the failed attempt did to the scratch model reaches nobody."""
    with_it = fleetseg.run(
        experiment(), clients=fleet("car-b"), net=network(), out=tmp_path / "with"
    )
    alone = {name: pairs for name, pairs in fleet().items() if name != "car-b"}
    without = fleetseg.run(experiment(), clients=alone, net=network(), out=tmp_path / "without")
    # Not the same bits, since the unit of the mean's fixed-point numbers is the cohort's.
    ours, theirs = with_it.model_with(network()), without.model_with(network())
    for value, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["inprocess", "workers"])
def test_if_all_fail_so_the_first_text_is_shown(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "try_one_step", lambda setup: [])  # or it would be found there
    with pytest.raises(QuorumLost) as caught:
        fleetseg.run(
            experiment(kind, max_failed_rounds=1),
            clients=fleet("car-a", "car-b", "car-c"),
            net=network(),
            out=tmp_path / "run",
        )
    assert "out-of-memory" in str(caught.value)
    assert "Tried to allocate 20.00 GiB" in str(caught.value)
    assert "smaller training.batch_size" in str(caught.value)


def test_if_nobody_has_the_memory_it_is_told_before_round_1(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Tried to allocate 20.*smaller training.batch_size"):
        fleetseg.run(
            experiment(),
            clients=fleet("car-a", "car-b", "car-c"),
            net=network(),
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_batch_too_large_to_be_scored_is_scored_in_parts(tmp_path: Path) -> None:
    runs = []
    for most in (1, 3, 1000):
        net = network(most)
        run = fleetseg.run(
            experiment(),
            clients=fleet(),
            evaluation={"test": pictures(9, count=7)},
            net=net,
            out=tmp_path / str(most),
        )
        runs.append(run.scores.to_dict())
    assert runs[0] == runs[1] == runs[2]


def test_one_image_too_large_to_be_scored_is_an_error_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match=r"while scoring one image on cpu.*smaller data\.size"):
        fleetseg.run(
            experiment(),
            clients=fleet(),
            evaluation={"test": pictures(9)},
            net=network(most=0),
            out=tmp_path / "run",
        )


def test_other_errors_are_raised_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(run_module, "try_one_step", lambda setup: [])
    monkeypatch.setattr("fleetseg.federation.tasks.train.train_locally", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        fleetseg.run(experiment(), clients=fleet(), net=network(), out=tmp_path / "run")


def test_a_worker_whose_gpu_is_full_says_so_and_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several processes on one GPU: the model of one finds no room, and later it does."""
    fleet_data = fleet_data_of_pairs(experiment(), label_space("camvid11"), fleet(), {})
    model = wrap(network(), fleet_data.space.num_classes)
    layout = layout_of(model)
    hardware = Hardware(torch.device("cpu"), "fp32")
    runtime = LocalRuntime(
        model, Exchange.of(layout), experiment(), hardware, fleet_data.space.num_classes
    )
    states = SharedStates(layout, 3)
    states[0].values_F.copy_(read_state(model, layout).values_F)
    job = workers.WorkerJob(0, 1, runtime, fleet_data.clients, states)
    original, calls = workers._own_runtime, []

    def crowded(job: workers.WorkerJob) -> LocalRuntime:
        calls.append(job.index)
        if len(calls) == 1:
            raise_out_of_memory()
        return original(job)

    monkeypatch.setattr(workers, "_own_runtime", crowded)
    monkeypatch.setattr(workers.signal, "signal", lambda *arguments: None)
    ours, theirs = multiprocessing.Pipe()
    for client in ("car-a", "car-b", "car-a"):
        order = {
            "task": "train", "round": 1, "facts": {}, "counted": [0, ""], "lineage": "",
            "common": True,
            "client": client,
        }  # fmt: skip
        ours.send_bytes(json.dumps(order).encode())
    threads, answers = torch.get_num_threads(), []
    serving = threading.Thread(target=workers.worker_main, args=(job, theirs))
    serving.start()
    assert json.loads(ours.recv_bytes()) == workers._READY
    while len(answers) < 3:
        answers.append(json.loads(ours.recv_bytes()))
    ours.close()
    serving.join()
    torch.set_num_threads(threads)
    assert answers[0]["failure"][:2] == ["lost", "out-of-memory"]
    assert [answer["change"]["client_id"] for answer in answers[1:]] == ["car-b", "car-a"]
    assert calls == [0, 0]
