"""Simulated drop-out and stragglers: repeatable, counted, and on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from fleetseg.config import Experiment
from fleetseg.engines.faults import SimulatedFaults
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.messages import Broadcast, Enrolment, Evaluation, Failure, Update
from fleetseg.federation.tensors import ModelState

MODEL = ModelState(torch.zeros(1), torch.zeros(0, dtype=torch.int64))
FLEET = [f"car-{i:03d}" for i in range(200)]


class Willing:
    """An engine whose clients always answer, and that remembers who was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def available(self) -> Mapping[str, Enrolment]:
        return {name: Enrolment(name, 10, 100, (100,)) for name in FLEET}

    def train(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Update | Failure]:
        self.asked += cohort
        for name in cohort:
            yield Update(broadcast.round, name, MODEL, 10, 100, 1, 10, 0.5)

    def evaluate(
        self, cohort: Sequence[str], broadcast: Broadcast, deadline_s: float
    ) -> Iterator[Evaluation | Failure]:
        yield from ()


def experiment(**faults: float) -> Experiment:
    return make_experiment(
        {
            "training": {"batch_size": 10},
            "federation": {"faults": {"seconds_per_image": 1.0, "megabytes_per_s": 2.0, **faults}},
        }
    )


def broadcast(round_: int) -> Broadcast:
    return Broadcast(round_, ModelState(torch.zeros(1), torch.zeros(0, dtype=torch.int64)))


def train(engine: SimulatedFaults, round_: int, deadline_s: float = 0.0) -> dict[str, str]:
    replies = engine.train(FLEET, broadcast(round_), deadline_s)
    return {r.client_id: getattr(r, "kind", "ok") for r in replies}


def test_drop_out_has_its_rate_and_differs_by_round() -> None:
    engine = SimulatedFaults(Willing(), experiment(dropout=0.3), 4_000_000)
    first, second = train(engine, 1), train(engine, 2)
    assert len(first) == len(second) == len(FLEET)
    assert 0.2 < sum(kind == "lost" for kind in first.values()) / len(FLEET) < 0.4
    assert first != second
    assert first == train(engine, 1)


def test_stragglers_are_late_in_every_round_and_do_not_train() -> None:
    behind = Willing()
    engine = SimulatedFaults(behind, experiment(stragglers=0.2, slowdown=10), 4_000_000)
    first = train(engine, 1, deadline_s=20.0)
    late = {name for name, kind in first.items() if kind == "late"}
    assert 0.1 < len(late) / len(FLEET) < 0.3
    assert late.isdisjoint(behind.asked)
    second = train(engine, 2, deadline_s=20.0)
    assert late == {name for name, kind in second.items() if kind == "late"}


def test_bytes_are_those_that_the_engine_behind_counts() -> None:
    counting = Willing()
    counting.traffic = lambda: (7, 5)  # type: ignore[attr-defined]
    engine = SimulatedFaults(counting, experiment(), 4_000_000)
    assert engine.traffic is not None
    assert engine.traffic() == (7, 5)
    assert SimulatedFaults(Willing(), experiment(), 4_000_000).traffic is None


def test_the_virtual_clock_waits_for_the_slowest_or_the_deadline() -> None:
    # 10 images at 1 s, and 4 MB over a link of 2 MB/s: 12 s for a normal vehicle.
    calm = SimulatedFaults(Willing(), experiment(), 4_000_000)
    train(calm, 1)
    assert calm.now_s == 12.0
    slow = SimulatedFaults(Willing(), experiment(stragglers=1.0, slowdown=5), 4_000_000)
    train(slow, 1)
    assert slow.now_s == 52.0
    train(slow, 2, deadline_s=20.0)
    assert slow.now_s == 72.0
