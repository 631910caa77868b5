"""Wall time of a federated run over a bare PyTorch loop that takes the same optimiser steps.

    python benchmarks/overhead.py

Both train the same network in the same format on one thread. The loop's batches are preloaded
tensors; the federated run reads them from its store, with each number of loaders in turn. Runs
alternate, and the ratio is the median over neighbouring runs. The ratio of processor time, loaders
included, depends less on other programs of the machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

import fleetseg
from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.augment import to_batch
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.rounds import Watcher
from fleetseg.learning.batches import batches
from fleetseg.learning.hardware import resolve
from fleetseg.learning.inputs import RoundContext
from fleetseg.learning.losses import build_loss, segmentation_loss
from fleetseg.learning.parameters import build_optimiser
from fleetseg.models.build import build_model
from fleetseg.runs.run import run_experiment


def experiment(cache: Path, rounds: int, loaders: int) -> Experiment:
    """Eight vehicles of about 37 images, as on CamVid; no augmentation, so both see the same."""
    return make_experiment(
        {
            "data": {
                "size": [192, 256],
                "cache": str(cache),
                "sources": [{"frames_per_drive": 12}],
            },
            "partition": {"clients": 8},
            "training": {"scale": [1.0, 1.0], "flip": False, "colour_jitter": 0.0},
            "federation": {"rounds": rounds},
            "engine": {"kind": "inprocess", "device": "cpu", "loaders": loaders},
            "evaluation": {"every": 0},
        }
    )


def bare_loop(described: Experiment, fleet_data: FleetData, rounds: int) -> tuple[float, float]:
    """Train on preloaded tensors, with the same number of steps and the same batch sizes.

    Returns wall and processor seconds.
    """
    hardware = resolve("cpu", "auto")
    model = build_model(described.model.name, fleet_data.space.num_classes)
    model = model.to(memory_format=torch.channels_last).train()
    loaded = [_preload(client, described) for client in fleet_data.clients.values()]
    loss_of = build_loss(described.training, check=False)
    started_s, began_s = time.perf_counter(), time.process_time()
    for _ in range(rounds):
        for client_batches in loaded:
            optimiser = build_optimiser(model, described.training)
            for images_NCHW, labels_NHW in client_batches:
                with hardware.autocast():
                    outputs = model(images_NCHW)
                loss = segmentation_loss(
                    outputs, labels_NHW, loss_of, described.training.aux_weight
                )
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                loss.item()
    return time.perf_counter() - started_s, time.process_time() - began_s


def federated(described: Experiment, fleet_data: FleetData, out: Path) -> tuple[float, float]:
    """Train by rounds; returns wall and processor seconds of the rounds alone."""
    marks_s: list[tuple[float, float]] = []

    def mark(*_: object) -> None:
        marks_s.append((time.perf_counter(), time.process_time()))

    watcher = Watcher(round_opened=mark, round_closed=mark)
    run_experiment(described, fleet_data, out, watcher=watcher)
    (first_wall_s, first_s), (last_wall_s, last_s) = marks_s[0], marks_s[-1]
    return last_wall_s - first_wall_s, last_s - first_s


def _preload(client: object, described: Experiment) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pairs = client.train  # type: ignore[attr-defined]
    count = -(-len(pairs) // described.training.batch_size)
    order = batches(len(pairs), described.training, RoundContext(0, 1, 1, "c"))
    return [to_batch([pairs[int(i)] for i in next(order)]) for _ in range(count)]


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loaders", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    bare_s: list[tuple[float, float]] = []
    federated_s: dict[int, list[tuple[float, float]]] = {loaders: [] for loaders in options.loaders}
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        fleet_data = open_fleet_data(experiment(cache, options.rounds, 0))
        warm_up = run_experiment(experiment(cache, 1, 0), fleet_data, Path(folder) / "warm-up")
        for repeat in range(options.repeats):
            for loaders, times_s in federated_s.items():
                described = experiment(cache, options.rounds, loaders)
                out = Path(folder) / f"run-{repeat}-{loaders}"
                times_s.append(federated(described, fleet_data, out))
            bare_s.append(bare_loop(described, fleet_data, options.rounds))
    steps = options.rounds * sum(r.steps for r in warm_up.records)
    print(
        f"fleetseg {fleetseg.__version__}, torch {torch.__version__}, 1 thread, {steps} steps, "
        f"medians of {options.repeats}"
    )
    print(f"bare loop                {statistics.median(wall for wall, _ in bare_s):8.3f} s")
    for loaders, times_s in federated_s.items():
        pairs = list(zip(times_s, bare_s, strict=True))
        wall, processor = (statistics.median(f[k] / b[k] for f, b in pairs) for k in (0, 1))
        median_s = statistics.median(wall_s for wall_s, _ in times_s)
        print(
            f"federated, {loaders} loader(s)  {median_s:8.3f} s: {wall:.3f} x (aim <= 1.03), "
            f"{processor:.3f} x in processor time"
        )


if __name__ == "__main__":
    main()
