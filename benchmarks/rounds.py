"""Framework time per round, and server memory, with training replaced by nothing.

    python benchmarks/rounds.py

Per round of N clients: fleetseg loads the broadcast into a model, reads the change back, checks it
and folds it; the reference does `load_state_dict` and a weighted sum of `state_dict`s in float32.
The two alternate, and the ratio is the median over neighbouring turns. A turn has more rounds where
there are few clients, because such rounds are short. Memory is the peak of a separate process,
above what it used between two rounds.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.experiment_file import make_experiment
from fleetseg.federation import rounds
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.client import Client, LocalRuntime
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tasks import train as train_task
from fleetseg.federation.tensors import layout_of, read_state
from fleetseg.learning.hardware import resolve
from fleetseg.learning.local import LocalResult
from fleetseg.learning.objectives import LocalCost
from fleetseg.models.bisenetv2 import BiSeNetV2
from fleetseg.models.build import wrap
from fleetseg.models.segmenter import Segmenter

TURNS = 5


class MemoryLog:
    """A log of rounds that writes nothing: checkpoints are measured separately."""

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self.records: list[RoundRecord] = []
        self._on_idle = on_idle

    def commit(self, state: ServerState, record: RoundRecord) -> None:
        """Keep the record; after the first round, report that the server is idle."""
        self.records.append(record)
        if len(self.records) == 1:
            self._on_idle()

    def publish(self, record: RoundRecord) -> None:
        """Do nothing: no round is scored."""


def make_model() -> Segmenter:
    """BiSeNetV2 for 19 classes without its auxiliary heads: 3.4 M parameters."""
    net = BiSeNetV2(19)
    net.boosters, net.aux = torch.nn.ModuleList(), torch.nn.Identity()  # never run here
    return wrap(net, 19, head_prefixes=["head."])


def federated(
    model: Segmenter,
    clients: int,
    num_rounds: int = 3,
    on_idle: Callable[[], None] = lambda: None,
) -> list[float]:
    """Seconds of each round of our loop, with training replaced by nothing."""
    experiment = make_experiment(
        {
            "federation": {"rounds": num_rounds},
            "evaluation": {"every": 0},
            "engine": {"threads": 1},
        }
    )
    exchange = Exchange.of(layout_of(model))
    runtime = LocalRuntime(model, exchange, experiment, resolve("cpu", "fp32"), 19)
    fleet = {
        f"car-{i:04d}": Client(Enrolment(f"car-{i:04d}", 10, 100, (100,)), ())
        for i in range(clients)
    }
    state = read_state(model, exchange.model)
    plan = Plan(experiment, exchange)
    log = MemoryLog(on_idle)
    nothing = LocalResult(LocalCost(1, 0.1), 10, 0.5, {}, {}, {})
    with mock.patch.object(train_task, "train_locally", return_value=nothing):
        engine = InProcessEngine(fleet, runtime)
        rounds.run(plan, engine, ServerState(0, state), log, rounds.Watcher())
    return [record.seconds for record in log.records]


def plain(model: Segmenter, clients: int, num_rounds: int) -> list[float]:
    """Seconds of each round of the simplest loop."""
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    seconds = []
    for _ in range(num_rounds):
        started_s = time.perf_counter()
        total = {k: torch.zeros_like(v, dtype=torch.float32) for k, v in weights.items()}
        for _ in range(clients):
            model.load_state_dict(weights)
            for key, value in model.state_dict().items():
                total[key] += value * (1 / clients)
        weights = {k: v.to(weights[k].dtype) for k, v in total.items()}
        seconds.append(time.perf_counter() - started_s)
    return seconds


def in_turns(model: Segmenter, clients: int) -> tuple[float, float]:
    """Median seconds of a round of each loop, measured one after the other."""
    num_rounds = max(3, 100 // clients)
    ours, theirs = federated(model, clients, num_rounds), plain(model, clients, num_rounds)
    return statistics.median(ours), statistics.median(theirs)


def peak_megabytes(clients: int) -> float:
    """Peak memory above idle, in MiB, of a process that runs our loop with this many clients."""
    answer = subprocess.run(
        [sys.executable, __file__, "--memory-of", str(clients)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(answer.stdout)


def _measure_memory(clients: int) -> None:
    torch.set_num_threads(1)
    model = make_model()
    federated(model, 2)  # allocates the libraries' own buffers
    before_kib = 0

    def note() -> None:
        nonlocal before_kib
        forget_peak()
        before_kib = peak_kib()

    federated(model, clients, on_idle=note)
    print((peak_kib() - before_kib) / 1024)


def forget_peak() -> None:
    """Reset Linux's peak of this process to its current memory."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_kib() -> int:
    """Return the peak memory of this process since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory-of", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        _measure_memory(options.memory_of)
        return
    torch.set_num_threads(1)
    model = make_model()
    parameters = sum(p.numel() for p in model.parameters())
    copy_mb = sum(v.nbytes for v in model.state_dict().values()) / 2**20
    print(f"{parameters:,} parameters, one model copy {copy_mb:.1f} MiB, 1 thread")
    print("clients   fleetseg s/round   plain s/round   ratio (aim <= 1.2)")
    for clients in (4, 20, 100, 1000):
        turns = [in_turns(model, clients) for _ in range(TURNS if clients < 1000 else 3)]
        ours, theirs = (statistics.median(turn[side] for turn in turns) for side in (0, 1))
        ratio = statistics.median(ours / theirs for ours, theirs in turns)
        print(f"{clients:7d}   {ours:16.4f}   {theirs:13.4f}   {ratio:5.2f}", flush=True)
    low, high = peak_megabytes(10), peak_megabytes(1000)
    print(f"server memory above idle: {low:.1f} MiB with 10 clients, {high:.1f} MiB with 1,000")
    print(f"  = {low / copy_mb:.2f} and {high / copy_mb:.2f} model copies (aim <= 2)")


if __name__ == "__main__":
    main()
