"""A fleet whose vehicles answer by a script, and runs of it that keep their log in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from fleetseg.config import Experiment, FederationConfig
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, Update
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher, run
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState, layout_of

DOWN, UP = 1000, 600  # bytes of a broadcast, of an update
LAYOUT = layout_of(nn.Linear(3, 1, bias=False))
NO_COUNTERS = torch.empty(0, dtype=torch.int64)
Reply = Update | Failure
Script = Callable[[str, Broadcast], list[Reply]]


def update(client: str, round_: int, delta: Sequence[float], images: int, **changes: Any) -> Update:
    change = ModelState(torch.tensor(list(delta), dtype=torch.float32), NO_COUNTERS)
    honest = Update(round_, client, change, images, images * 10, 2, images, 0.5)
    return replace(honest, **changes)


@dataclass
class Fleet:
    """Each car returns the same change in every round, unless a script says otherwise."""

    deltas: Mapping[str, tuple[list[float], int]]  # change, images
    scripts: Mapping[str, Script] = field(default_factory=dict)
    abstains: frozenset[str] = frozenset()
    seen: list[tuple[int, tuple[str, ...], list[float], float]] = field(default_factory=list)
    asks: list[Mapping[str, Broadcast]] = field(default_factory=list)
    round_s: float = 0.0  # by the clock of its meter
    _sent: Meter = field(default_factory=Meter)

    def available(self) -> Mapping[str, Enrolment]:
        return {
            c: Enrolment(c, n, n * 10, (n,), "nothing to learn" if c in self.abstains else "")
            for c, (_, n) in self.deltas.items()
        }

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        assert task == "train"
        self.asks.append(asks)
        first = next(iter(asks.values()))
        self.seen.append((first.round, tuple(asks), first.state.values_F.tolist(), deadline_s))
        self._count(len(asks) * DOWN, 0, self.round_s)
        for client, broadcast in asks.items():
            delta, images = self.deltas[client]
            script = self.scripts.get(client)
            honest = [update(client, broadcast.round, delta, images)]
            for reply in script(client, broadcast) if script else honest:
                self._count(0, UP * isinstance(reply, Update))
                yield reply

    def meter(self) -> Meter:
        return self._sent

    def _count(self, down: int, up: int, seconds: float = 0.0) -> None:
        sent = self._sent
        self._sent = Meter(sent.bytes_down + down, sent.bytes_up + up, sent.seconds + seconds)


@dataclass
class MemoryLog:
    records: list[RoundRecord] = field(default_factory=list)
    states: list[ServerState] = field(default_factory=list)

    def commit(self, state: ServerState, record: RoundRecord) -> None:
        self.records.append(record)
        self.states.append(state)

    def publish(self, record: RoundRecord) -> None:
        self.records[-1] = record


def start(momentum: bool = False, failed_rounds: int = 0) -> ServerState:
    model = ModelState(torch.zeros(3), NO_COUNTERS)
    return ServerState(0, model, {"momentum": torch.zeros(3)} if momentum else {}, failed_rounds)


def plan(score: Any = None, **sections: Any) -> Plan:
    federation = FederationConfig(**sections.pop("federation", {}))
    score_of = score and (lambda model, round_, records, facts: score(model, round_, records))
    return Plan(Experiment(federation=federation, **sections), Exchange.of(LAYOUT), score_of)


def go(fleet: Fleet, plan_: Plan, state: ServerState | None = None) -> tuple[str, MemoryLog]:
    log = MemoryLog()
    return run(plan_, fleet, state or start(), log, Watcher()), log


def lost(client: str, broadcast: Broadcast) -> list[Reply]:
    return [Failure(client, "lost", "crashed")]


def late(client: str, broadcast: Broadcast) -> list[Reply]:
    return [Failure(client, "late", "deadline")]


def silent(client: str, broadcast: Broadcast) -> list[Reply]:
    return []


TWO = {"a": ([1.0, 2.0, 3.0], 1), "b": ([5.0, 6.0, 7.0], 3)}
FOUR = {c: ([1.0, 2.0, 3.0], 1) for c in "abcd"}
