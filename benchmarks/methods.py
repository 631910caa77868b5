"""Costs of each preset beside FedAvg: time, bytes, state of clients and server.

    python benchmarks/methods.py [--methods fedprox scaffold ...]

All presets train the same network on the same images, in one thread. Runs alternate, forwards and
backwards; a ratio is the median of the ratios within a repeat. Round 1 is left out, because some
methods begin with the second. "Hooks" is the time of an objective's begin, end, corrections and
perturbations (not its passes), over the rest of the rounds' time. Memory is of a server with ten
clients that train nothing, in a separate process for each preset: what the server holds between two
rounds, and the peak of a round above that, in copies of the model.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import fleetseg
from fleetseg.clients import FleetData, open_fleet_data
from fleetseg.config import Experiment
from fleetseg.data.labels import CITYSCAPES_19
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.engines.runtime import local_runtime
from fleetseg.experiment_file import make_experiment
from fleetseg.federation import rounds
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.client import Client
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.fleet_facts import reported_facts
from fleetseg.federation.messages import Enrolment
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.server_optim import first_slots
from fleetseg.federation.tasks import train as train_task
from fleetseg.federation.tensors import read_state
from fleetseg.learning.hardware import resolve
from fleetseg.learning.local import LocalResult
from fleetseg.learning.objectives import OBJECTIVES, LocalCost
from fleetseg.methods import METHODS
from fleetseg.runs.run import run_experiment
from rounds import MemoryLog, forget_peak, make_model, peak_kib

MIB = 2**20
CLIENTS, CLASSES = 10, 19  # of the server whose memory is measured
HOOKS = ("begin", "perturb", "correct", "end")


def experiment(name: str, cache: str, num_rounds: int) -> Experiment:
    """A preset on four vehicles of about 18 images; no augmentation.

    Where vehicles have no labels, they learn from what an untrained network says: it costs as much.
    """
    fields, more = METHODS[name].fields, {}
    if "unlabelled" in fields.get("partition", {}):
        more = {"safety": {"max_loss": 1.0, "collapse": 0.0}}
    if "pretrain" in fields:
        sources = [{"split": "val", "frames_per_drive": 1}]
        more |= {"pretrain": {"sources": sources, "rounds": 1, "steps": 1}}
    self_training = {"self_training": {"from_scratch": True}} if more else {}
    return make_experiment(
        {
            "method": name,
            **more,
            "data": {"size": [192, 256], "cache": cache, "sources": [{"frames_per_drive": 3}]},
            "partition": {"kind": "iid", "clients": 4},
            "training": {
                "local_epochs": 1, "scale": [1.0, 1.0], "flip": False, "colour_jitter": 0.0,
                **self_training,
            },
            "federation": {"rounds": num_rounds, "cohort": 1.0},
            "engine": {"kind": "inprocess", "device": "cpu", "loaders": 0},
            "evaluation": {"every": 0},
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Costs of one run, from its second round on."""

    seconds: float  # a round, by the clock
    processor_seconds: float  # without other processes of the machine
    hook_seconds: float  # of processor time
    steps: int
    images: int
    bytes_down: int
    bytes_up: int
    state_bytes: int  # state of a client, the largest


class Stopwatch:
    """Sum of the processor time of calls while it runs."""

    def __init__(self) -> None:
        self.seconds, self.runs = 0.0, False

    def around(self, hook: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """Return the hook with its time added up; None if there is no hook."""
        if hook is None:
            return None

        def timed(*args: Any) -> Any:
            started_s = time.process_time()
            try:
                return hook(*args)
            finally:
                if self.runs:
                    self.seconds += time.process_time() - started_s

        return timed


@contextmanager
def hooks_timed(name: str) -> Iterator[Stopwatch]:
    """Time the hooks of an objective inside the block."""
    watch, own = Stopwatch(), OBJECTIVES[name]
    timed = {hook: watch.around(getattr(own, hook)) for hook in HOOKS}
    with mock.patch.dict(OBJECTIVES, {name: replace(own, **timed)}):
        yield watch


def measured(described: Experiment, fleet_data: FleetData, out: Path) -> Cost:
    """Run a preset and measure it."""
    marks_s: list[tuple[float, float]] = []
    with hooks_timed(described.training.objective) as watch:

        def mark(record: RoundRecord) -> None:
            watch.runs = True  # from the second round on
            marks_s.append((time.perf_counter(), time.process_time()))

        run = run_experiment(described, fleet_data, out, watcher=rounds.Watcher(round_closed=mark))
    later = run.records[1:]
    (first_s, began_s), (last_s, ended_s) = marks_s[0], marks_s[-1]
    return Cost(
        seconds=(last_s - first_s) / len(later),
        processor_seconds=(ended_s - began_s) / len(later),
        hook_seconds=watch.seconds / len(later),
        steps=later[0].steps,
        images=sum(record.images_seen for record in later),
        bytes_down=later[0].bytes_down,
        bytes_up=later[0].bytes_up,
        state_bytes=max(
            (path.stat().st_size for path in out.glob("clients/*/*.safetensors")), default=0
        ),
    )


# The server's memory


class HeldLog(MemoryLog):
    """A log that notes how much memory the server holds between rounds."""

    held_bytes = 0

    def commit(self, state: ServerState, record: RoundRecord) -> None:
        """Add up distinct memory: a vector that two names share counts once."""
        tensors = [state.model.values_F, state.model.counters_K]
        tensors += [*state.slots.values(), *state.published.values()]
        storages = [tensor.untyped_storage() for tensor in tensors]
        self.held_bytes = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
        super().commit(state, record)


def serve(name: str, folder: Path, on_idle: Callable[[], None]) -> int:
    """Run a preset's server with clients that train nothing; returns the bytes that it holds."""
    described = make_experiment(
        {"method": name, "federation": {"rounds": 3}, "evaluation": {"every": 0}}
    )
    model, hardware = make_model(), resolve("cpu", "fp32")
    store = ClientStateStore(folder / "clients")
    runtime = local_runtime(described, model, hardware, CITYSCAPES_19, store)
    exchange = runtime.exchange
    state = ServerState(
        0,
        exchange.first(read_state(model, exchange.model)),
        first_slots(described.federation, exchange.wire),
    )
    zeros_T = torch.zeros(exchange.shared.num_trainable)
    changes_T = dict.fromkeys(exchange.extras, zeros_T)
    nothing = LocalResult(LocalCost(1, 0.1), 10, 0.5, {}, {}, changes_T)
    log = HeldLog(on_idle)
    with mock.patch.object(train_task, "train_locally", return_value=nothing):
        engine = InProcessEngine(idle_fleet(described), replace(runtime, memory=None))
        plan = Plan(described, exchange, scratch=folder)
        rounds.run(plan, engine, state, log, rounds.Watcher())
    return log.held_bytes


def idle_fleet(described: Experiment) -> dict[str, Client]:
    """Make clients that enrol with one black image each."""
    pairs = [(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))]
    facts, names = reported_facts(described, pairs), [f"car-{i:02d}" for i in range(CLIENTS)]
    histogram_C = (32 * 32, *[0] * (CLASSES - 1))
    return {
        name: Client(Enrolment(name, 1, 32 * 32, histogram_C, facts=facts), pairs) for name in names
    }


def _serve_and_print(name: str) -> None:
    torch.set_num_threads(1)
    before_kib = 0

    def note() -> None:
        nonlocal before_kib
        forget_peak()
        before_kib = peak_kib()

    with tempfile.TemporaryDirectory() as folder:
        serve("fedavg", Path(folder), lambda: None)  # allocates the libraries' own buffers
        held_bytes = serve(name, Path(folder), note)
    copy_bytes = sum(value.nbytes for value in make_model().state_dict().values())
    above = (peak_kib() - before_kib) * 1024 / copy_bytes
    print(held_bytes / copy_bytes, above)


def server_memory(name: str) -> tuple[float, float]:
    """Return the memory that a preset's server holds, and its peak above that, in model copies."""
    answer = subprocess.run(
        [sys.executable, __file__, "--memory-of", name], capture_output=True, text=True, check=True
    )
    held, above = answer.stdout.split()
    return float(held), float(above)


# The table


def adds_a_pass(name: str) -> bool:
    """Whether a preset's objective passes a batch through a network more than once."""
    objective = OBJECTIVES[make_experiment({"method": name}).training.objective]
    return objective.perturb is not None or objective.loss is not None


COLUMNS = (
    "s/round", "x", "x cpu", "hooks %", "MiB down", "MiB up", "x both", "client MiB", "holds",
    "peak",
)  # fmt: skip


def line(name: str, cells: Iterable[str]) -> str:
    """Format a line of the table."""
    return f"{name:14s}" + "".join(f"{cell:>11s}" for cell in cells)


def row(name: str, costs: list[Cost], beside: list[Cost]) -> str:
    """Format a preset's line, beside FedAvg's costs in the same repeats."""
    cost, base = costs[0], beside[0]
    pairs = list(zip(costs, beside, strict=True))
    hooks = statistics.median(
        c.hook_seconds / (c.processor_seconds - c.hook_seconds) for c in costs
    )
    held, above = server_memory(name)
    numbers = (
        statistics.median(c.seconds for c in costs),
        statistics.median(one.seconds / other.seconds for one, other in pairs),
        statistics.median(one.processor_seconds / other.processor_seconds for one, other in pairs),
        100 * hooks,
        cost.bytes_down / MIB,
        cost.bytes_up / MIB,
        (cost.bytes_down + cost.bytes_up) / (base.bytes_down + base.bytes_up),
        cost.state_bytes / MIB,
        held,
        above,
    )
    odd = "" if cost.images == base.images else f"  sees {cost.images} images, not {base.images}"
    marked = f"{name}*" if adds_a_pass(name) else name
    return line(marked, (f"{number:.2f}" for number in numbers)) + odd


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--rounds", type=int, default=3, help="including one warm-up round")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-of", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        _serve_and_print(options.memory_of)
        return
    torch.set_num_threads(1)
    names = list(dict.fromkeys(["fedavg", *options.methods]))
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        cache = str(Path(folder) / "cache")
        # Methods ask vehicles for facts of their own when data are opened.
        data = {name: open_fleet_data(experiment(name, cache, 1)) for name in names}
        run_experiment(experiment("fedavg", cache, 1), data["fedavg"], Path(folder) / "warm-up")
        for repeat in range(options.repeats):
            for name in names if repeat % 2 == 0 else reversed(names):
                described = experiment(name, cache, options.rounds)
                out = Path(folder) / f"{name}-{repeat}"
                costs[name].append(measured(described, data[name], out))
    print(
        f"fleetseg {fleetseg.__version__}, torch {torch.__version__}, 1 thread, "
        f"{costs['fedavg'][0].steps} steps per round, medians of {options.repeats}"
    )
    print(line("", COLUMNS))
    for name in names:
        print(row(name, costs[name], costs["fedavg"]), flush=True)
    print("x: relative to FedAvg in the same repeat, by the clock and by processor time")
    print("hooks: aim <= 3 with one pass per batch (*: several passes); holds, peak: model copies")


if __name__ == "__main__":
    main()
