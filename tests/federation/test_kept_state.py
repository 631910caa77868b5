"""What did not count was never learnt, whoever keeps what, and what is missing is no first round.

The real clients, their states on disk and the server's loop; who is heard is scripted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tests.methods.test_preset import experiment, small_net
from torch import Tensor

from fleetseg.clients import open_fleet_data
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.client_state import NO_STATE, ClientStateStore
from fleetseg.federation.counted import last_counted
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.kept_state import keeps_state
from fleetseg.federation.messages import Broadcast, Enrolment, Failure
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher, run
from fleetseg.federation.server_optim import first_slots
from fleetseg.federation.tensors import read_state
from fleetseg.runs.setup import RunSetup, set_up

Fate = Literal["counts", "refused", "late", "unread", "unreachable"]
"""Of an update: `unread` is trained and never looked at, as where enough others are in."""
Script = Callable[[int, int], Fate]
"""(number of the client, round) -> what becomes of its update."""
ROUNDS = 5
NO_QUORUM, SCRIPTED = 4, {2: "refused", 3: "unread"}
CASES: dict[str, dict[str, Any]] = {
    "what top-k left out": {"name": "fedavg", "federation": {"uplink": "topk(10%)+int8"}},
    "what PowerSGD left out": {"name": "fedavg", "federation": {"uplink": "powersgd(1)+fp32"}},
    "moments": {"name": "fedavg", "training": {"optimiser_state": "kept"}},
    "SCAFFOLD's c_i": {"name": "scaffold"},
    "FedDyn's h_i": {"name": "feddyn"},
    "FedDC's h_i and c_i": {"name": "feddc"},
    "norm layers": {"name": "silobn"},
}
each_case = pytest.mark.parametrize("case", CASES)


def nothing_lost(number: int, round_: int) -> Fate:
    return "counts"


def works_for_nothing(number: int, round_: int) -> Fate:
    """The first client for two rounds, all for one in which too few are heard of."""
    if round_ == NO_QUORUM:
        return "late"
    return SCRIPTED.get(round_, "counts") if number == 0 else "counts"  # type: ignore[return-value]


def never_hears(number: int, round_: int) -> Fate:
    """The same, but that nobody works in vain."""
    return "counts" if works_for_nothing(number, round_) == "counts" else "unreachable"


@dataclass
class Fleet:
    """A run whose log is kept in memory, with an engine that drops updates by a script."""

    setup: RunSetup
    script: Script
    records: list[RoundRecord] = field(default_factory=list)
    states: list[ServerState] = field(default_factory=list)
    rounds: int = ROUNDS

    @property
    def names(self) -> list[str]:
        return sorted(self.setup.fleet_data.clients)

    @property
    def store(self) -> ClientStateStore:
        assert self.setup.runtime.memory is not None
        return self.setup.runtime.memory

    def available(self) -> Mapping[str, Enrolment]:
        return {n: c.enrolment for n, c in self.setup.fleet_data.clients.items()}

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        engine = InProcessEngine(self.setup.fleet_data.clients, self.setup.runtime)
        for client, broadcast in asks.items():
            fate = self.script(self.names.index(client), broadcast.round)
            if fate == "unreachable":
                continue
            (reply,) = engine.ask(task, {client: broadcast})
            if fate == "counts":
                yield reply
            elif fate in ("refused", "late"):
                yield Failure(client, fate, "magnitude")

    def meter(self) -> Meter:
        return Meter()

    def commit(self, state: ServerState, record: RoundRecord) -> None:
        self.records.append(record)
        self.states.append(state)

    def publish(self, record: RoundRecord) -> None:
        self.records[-1] = record

    def go(self, state: ServerState | None = None) -> Fleet:
        """Go on to the last round, from a state or from the start."""
        described, exchange = self.setup.experiment, self.setup.runtime.exchange
        if state is None:
            first = exchange.first(read_state(self.setup.runtime.model, exchange.model))
            state = ServerState(0, first, first_slots(described.federation, exchange.wire))
        federation = described.federation.model_copy(update={"rounds": self.rounds})
        wished = described.model_copy(update={"federation": federation})
        plan = Plan(wished, exchange, scratch=self.setup.folder.path)
        assert run(plan, self, state, self, Watcher()) == "rounds"
        return self

    def back_to(self, round_: int) -> ServerState:
        """Be a server that has lost what came after a round."""
        del self.records[round_:], self.states[round_:]
        return self.states[-1]

    def kept(self, client: str) -> Mapping[str, Tensor]:
        return self.store.load(client, 99, last_counted(self.records, [client])[client])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def fleet_of(case: str, cache: Path, out: Path, script: Script = nothing_lost) -> Fleet:
    fields = {"name": "fedavg", **CASES.get(case, {})}
    wished = experiment(fields["name"], cache)
    federation = {"rounds": ROUNDS, "cohort": 1.0, "quorum": 0.5, **fields.get("federation", {})}
    training = {"local_steps": 2, **fields.get("training", {})}
    wished = wished.model_copy(
        update={
            "data": wished.data.model_copy(update={"size": (24, 32)}),
            "training": wished.training.model_copy(update=training),
            "federation": wished.federation.model_copy(update=federation),
        }
    )
    out.mkdir()
    net = small_net(fields["name"])
    return Fleet(set_up(wished, open_fleet_data(wished), out, net, Watcher()), script)


def same(one: Fleet, other: Fleet) -> bool:
    """Say whether both came to the same bits: the server's, and what clients keep."""
    ours, theirs = one.states[-1], other.states[-1]
    assert one.names == other.names
    return (
        ours.model.digest() == theirs.model.digest()
        and equal(ours.slots, theirs.slots)
        and all(equal(one.kept(client), other.kept(client)) for client in one.names)
    )


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@each_case
def test_what_did_not_count_was_never_learnt(case: str, cache: Path, tmp_path: Path) -> None:
    """Refused, not read, late in a round without a quorum: as if it had not been asked."""
    dropped = fleet_of(case, cache, tmp_path / "dropped", works_for_nothing).go()
    assert [record.quorum for record in dropped.records] == [True, True, True, False, True]
    assert same(dropped, fleet_of(case, cache, tmp_path / "absent", never_hears).go())
    assert keeps_state(dropped.setup.runtime)
    assert dropped.kept(dropped.names[0])


@pytest.mark.parametrize("case", ["what top-k left out", "SCAFFOLD's c_i"])
def test_rounds_that_a_server_went_back_on_leave_nothing(
    case: str, cache: Path, tmp_path: Path
) -> None:
    """Rounds 3 and 4 are done again without a client that was in the first ones."""

    def away(number: int, round_: int) -> Fate:
        return "unreachable" if number == 0 and round_ in (3, 4) else "counts"

    fleet = replace(fleet_of(case, cache, tmp_path / "back"), rounds=4).go()
    abandoned = [state.lineage for state in fleet.states]
    fleet = replace(fleet, script=away, rounds=ROUNDS)
    fleet.go(fleet.back_to(2))
    assert [state.lineage for state in fleet.states[:2]] == abandoned[:2]
    assert not {state.lineage for state in fleet.states[2:]} & set(abandoned)
    straight = fleet_of(case, cache, tmp_path / "straight", away).go()
    assert same(fleet, straight)
    assert [s.lineage for s in fleet.states] == [s.lineage for s in straight.states]


def test_a_state_of_an_abandoned_round_is_not_taken_for_that_of_its_number(
    cache: Path, tmp_path: Path
) -> None:
    """It comes back by another way: a site that served the vehicle then, a copy of its disk."""
    fleet = replace(fleet_of("what top-k left out", cache, tmp_path / "run"), rounds=4).go()
    shutil.copytree(fleet.store.folder, tmp_path / "copy")

    def away(number: int, round_: int) -> Fate:
        return "unreachable" if number == 0 and round_ == 3 else "counts"

    fleet = replace(fleet, script=away)
    fleet.go(fleet.back_to(2))
    shutil.rmtree(fleet.store.folder)
    shutil.copytree(tmp_path / "copy", fleet.store.folder)
    fleet = replace(fleet, rounds=6)
    fleet.go(fleet.states[-1])
    assert {f.client_id for f in fleet.records[4].failures if f.reason == NO_STATE} == {
        *fleet.names
    }
    assert fleet.records[5].accepted == tuple(fleet.names)


@pytest.mark.parametrize("case", ["what top-k left out", "moments", "norm layers"])
def test_who_has_lost_its_state_says_so_once_and_begins_anew(
    case: str, cache: Path, tmp_path: Path
) -> None:
    """The log has it; a run that goes on twice from there comes to the same."""
    fleet = replace(fleet_of(case, cache, tmp_path / "run"), rounds=2).go()
    first, *others = fleet.names
    shutil.rmtree(fleet.store._path(first, last_counted([], [first])[first]).parent)
    fleet = replace(fleet, rounds=4)
    fleet.go(fleet.states[-1])
    lost, anew = fleet.records[2:]
    assert [(f.client_id, f.kind, f.reason) for f in lost.failures] == [(first, "lost", NO_STATE)]
    assert "state from round 2 is missing; it starts afresh" in lost.failures[0].detail
    assert (lost.accepted, anew.accepted) == (tuple(others), tuple(fleet.names))
    once = fleet.states[-1].model.digest()
    fleet.go(fleet.back_to(3))
    assert fleet.states[-1].model.digest() == once


def test_where_nothing_is_kept_nothing_is_missed(cache: Path, tmp_path: Path) -> None:
    fleet = fleet_of("plain", cache, tmp_path / "run").go()
    assert not keeps_state(fleet.setup.runtime)
    assert not fleet.store.folder.exists()
    assert all(record.accepted == tuple(fleet.names) for record in fleet.records)
