"""Time to the end of a first, tiny round: workers forked off one process, or started one by one.

    python benchmarks/workers_start.py

Each figure is of a separate process that has already loaded torch, as a run has by then. The
reference is the same engine with a new interpreter for each worker (as on GPUs).
"""

from __future__ import annotations

import argparse
import multiprocessing
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

import fleetseg
from fleetseg.engines import starting
from fleetseg.experiment_file import make_experiment


def images(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Four frames of 16 x 16 with two classes."""
    generator = np.random.Generator(np.random.Philox(seed))
    frames = generator.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    return [(frame, (frame[..., 0] > 127).astype(np.uint8)) for frame in frames]


def measure(way: str, workers: int) -> None:
    """Print the seconds of a run and of the next one in the same process."""
    if way == "one by one":
        starting._context = lambda on_cpu: multiprocessing.get_context("spawn")
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])
    space = fleetseg.LabelSpace(
        "two", ("dark", "bright"), ((0, 0, 0), (255, 255, 255)), ("bright",)
    )
    experiment = make_experiment(
        {
            "data": {"size": [16, 16]},
            "federation": {"rounds": 1},
            "engine": {"kind": "workers", "workers": workers, "precision": "fp32"},
        }
    )
    clients = {f"car-{number}": images(number) for number in range(workers)}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            began_s = time.perf_counter()
            out = Path(folder) / str(number)
            fleetseg.run(experiment, out=out, net=nn.Conv2d(3, 2, 1), clients=clients, space=space)
            print(time.perf_counter() - began_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "WORKERS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure[0], int(args.measure[1]))
        return
    for workers in (2, 8):
        times_s = {}
        for way in ("one by one", "forked"):
            command = [sys.executable, __file__, "--measure", way, str(workers)]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            times_s[way] = [float(line) for line in told.split()]
        first, second = (
            a / b for a, b in zip(times_s["one by one"], times_s["forked"], strict=True)
        )
        for way, (one, two) in times_s.items():
            print(f"{workers} workers, {way}: first run {one:.2f} s, second run {two:.2f} s")
        print(f"{workers} workers: {first:.1f} x faster forked, second run {second:.1f} x")


if __name__ == "__main__":
    main()
