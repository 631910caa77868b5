"""Every preset: a vehicle absent for long, one that joins late, and updates that do not count.

The real clients, their states and the server's loop; only who is there is scripted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from tests.methods.test_preset import experiment, small_net
from torch import Tensor

from fleetseg.clients import open_fleet_data
from fleetseg.config import Experiment, SourceConfig
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.federation.checkpoint import ServerState, load_newest, save_checkpoint
from fleetseg.federation.client import LocalRuntime
from fleetseg.federation.client_state import ClientStateStore
from fleetseg.federation.counted import last_counted
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.messages import Broadcast, Counted, Enrolment, Failure, Update
from fleetseg.federation.plan import Plan
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher, run
from fleetseg.federation.server_optim import first_slots
from fleetseg.federation.tensors import read_state
from fleetseg.methods import METHODS
from fleetseg.runs.setup import RunSetup, set_up

Attendance = Literal["there", "away", "refused", "unreachable"]
"""`refused` works for nothing, `unreachable` never hears that it is asked."""
ROUNDS = 37
STAYS, GOES, JOINS, LEAVES = range(4)
KEEPS_STATE = {"scaffold", "feddyn", "feddc", "fedspeed", "mimelite", "moon", "ditto"} | {
    "fedbn", "silobn", "silobn-lab", "fedper", "fedrep",
}  # fmt: skip
MEANS = {
    "scaffold": ("control",),
    "feddyn": ("drift",),
    "feddc": ("control", "drift"),
}
"""Of what each client keeps, of which the server has the mean over all."""
CITIES = tuple(
    SourceConfig(conditions=("day",), cities=(city,), frames_per_drive=frames)
    for city, frames in {"amber": 3, "birch": 4, "coral": 3, "delta": 3}.items()
)
"""One vehicle of each."""
each_preset = pytest.mark.parametrize("name", METHODS)


def attendance(number: int, round_: int) -> Attendance:
    """Say how a vehicle, by its number, takes part in a round."""
    if number == GOES and (round_ in (2, 35) or 3 <= round_ <= 12):
        return "refused" if round_ in (2, 35) else "unreachable"
    if number == STAYS and 3 <= round_ <= 33 and round_ % 8 != 1:
        return "unreachable"  # rounds that cost no time
    if number == JOINS and round_ == 34:
        return "refused"
    away = {GOES: range(13, 34), JOINS: range(34), LEAVES: range(3, 99)}
    return "away" if round_ in away.get(number, ()) else "there"


def without_work_for_nothing(number: int, round_: int) -> Attendance:
    """Say the same, but that nobody hears of rounds that come to nothing for it."""
    real = attendance(number, round_)
    return "unreachable" if real == "refused" else real


@dataclass
class Fleet:
    """A run, an engine that lets clients take part as they are scripted, and a log in memory."""

    setup: RunSetup
    how: dict[str, partial[Attendance]]
    crash_in: int = 0  # a round that is not committed
    records: list[RoundRecord] = field(default_factory=list)
    states: list[ServerState] = field(default_factory=list)
    sent: dict[tuple[int, str], str] = field(default_factory=dict)  # of updates that count
    as_new: dict[str, str] = field(default_factory=dict)  # the same from clients without a state
    kept: dict[int, dict[str, dict[str, bytes]]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of the clients, in the order of their numbers."""
        return list(self.how)

    @property
    def runtime(self) -> LocalRuntime:
        return self.setup.runtime

    @property
    def store(self) -> ClientStateStore:
        assert self.runtime.memory is not None
        return self.runtime.memory

    def here(self, client: str) -> Attendance:
        return self.how[client](len(self.records) + 1)

    # As an engine

    def available(self) -> Mapping[str, Enrolment]:
        clients = self.setup.fleet_data.clients
        return {n: c.enrolment for n, c in clients.items() if self.here(n) != "away"}

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        for client, broadcast in asks.items():
            if self.here(client) == "unreachable":
                yield Failure(client, "lost", "no-answer")
                continue
            (reply,) = self.serving().ask(task, {client: broadcast})
            assert isinstance(reply, Update)
            if self.here(client) == "refused":
                yield Failure(client, "refused", "magnitude")
                continue
            self.sent[broadcast.round, client] = reply.change.digest()
            yield reply
            if not any(client in record.accepted for record in self.records):
                empty = ClientStateStore(self.setup.folder.path / "empty")
                (again,) = self.serving(memory=empty).ask(task, {client: broadcast})
                assert isinstance(again, Update)
                self.as_new[client] = again.change.digest()

    def serving(self, **changes: ClientStateStore) -> InProcessEngine:
        runtime = replace(self.runtime, **changes) if changes else self.runtime
        return InProcessEngine(self.setup.fleet_data.clients, runtime)

    def meter(self) -> Meter:
        return Meter()

    # As a log

    def commit(self, state: ServerState, record: RoundRecord) -> None:
        if record.round == self.crash_in:
            raise RuntimeError("power failure")
        self.records.append(record)
        self.states.append(state)
        self.kept[record.round] = {client: self.files(client) for client in self.how}

    def publish(self, record: RoundRecord) -> None:
        self.records[-1] = record

    def files(self, client: str) -> dict[str, bytes]:
        folder = self.store._path(client, Counted(0)).parent
        return {path.name: path.read_bytes() for path in folder.glob("*")}

    def state_of(self, client: str) -> Mapping[str, Tensor]:
        """What a client keeps of the last of its updates that counted."""
        counted = last_counted(self.records, [client])[client]
        return self.store.load(client, counted.round + 1)

    # Its run

    def first(self) -> ServerState:
        exchange, federation = self.runtime.exchange, self.setup.experiment.federation
        model = exchange.first(read_state(self.runtime.model, exchange.model))
        return ServerState(0, model, first_slots(federation, exchange.wire))

    def go(self, state: ServerState, watcher: Watcher = Watcher()) -> None:  # noqa: B008 (frozen)
        wished, folder = self.setup.experiment, self.setup.folder.path
        plan = Plan(wished, self.runtime.exchange, scratch=folder)
        assert run(plan, self, state, self, watcher) == "rounds"


@dataclass
class MeansKept:
    """Compares what the server has with the mean of what clients keep, after each round."""

    fleet: Fleet
    names: tuple[str, ...]

    def look(self, record: RoundRecord) -> None:
        fleet, state = self.fleet, self.fleet.states[-1]
        met = 3 if record.round < 34 else 4  # a vehicle that left is among them
        spans = fleet.runtime.exchange.server.spans
        for name in self.names:
            kept = [fleet.state_of(client).get(f"objective/{name}") for client in fleet.names]
            mean_T = sum(vector_T for vector_T in kept if vector_T is not None) / met
            found_T = state.model.values_F[spans[name]] if name in spans else state.slots[name]
            assert mean_T.abs().max() > 1e-4
            torch.testing.assert_close(found_T, mean_T, rtol=1e-4, atol=1e-6)


def described(name: str, cache: Path) -> Experiment:
    whole = experiment(name, cache)
    federation = {"rounds": ROUNDS, "cohort": 1.0, "quorum": 0.0, "max_failed_rounds": 9}
    return whole.model_copy(
        update={
            "data": whole.data.model_copy(update={"size": (24, 32), "sources": CITIES}),
            "training": whole.training.model_copy(update={"local_steps": 2}),
            "federation": whole.federation.model_copy(update=federation),
        }
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Fleet]:
    """Each preset's run by the script, made when it is first asked for."""

    class Runs(dict[str, Fleet]):
        def __missing__(self, name: str) -> Fleet:
            fleet = fleet_of(name, cache, tmp_path_factory.mktemp("whole"))
            means = MeansKept(fleet, MEANS.get(name, ()))
            fleet.go(fleet.first(), Watcher(round_closed=means.look))
            return self.setdefault(name, fleet)

    return Runs()


def fleet_of(
    name: str, cache: Path, out: Path, how: Callable[[int, int], Attendance] = attendance
) -> Fleet:
    wished = described(name, cache)
    out.mkdir(exist_ok=True)
    setup = set_up(wished, open_fleet_data(wished), out, small_net(name), Watcher())
    names = sorted(setup.fleet_data.clients)
    return Fleet(setup, {client: partial(how, number) for number, client in enumerate(names)})


def newest(fleet: Fleet) -> tuple[dict[str, Tensor], dict[str, Mapping[str, Tensor]]]:
    """All vectors of a fleet when its run is over: the server's, and the clients'."""
    state = fleet.states[-1]
    server = {"values": state.model.values_F, "counters": state.model.counters_K}
    server |= {f"slot {name}": vector_T for name, vector_T in state.slots.items()}
    server |= {f"published {name}": vector_F for name, vector_F in state.published.items()}
    return server, {client: fleet.state_of(client) for client in fleet.names}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def same(one: Fleet, other: Fleet) -> None:
    """Both have come to the same bits."""
    (server, clients), (server_too, clients_too) = newest(one), newest(other)
    assert equal(server, server_too)
    assert [client for client in clients if not equal(clients[client], clients_too[client])] == []
    assert one.sent == other.sent
    assert one.states[-1].memory == other.states[-1].memory


@each_preset
def test_after_a_crash_it_goes_on_to_the_same(
    name: str, whole: dict[str, Fleet], cache: Path, tmp_path: Path
) -> None:
    """In a round whose clients have kept their states already, one of them for nothing."""
    fleet, ids = fleet_of(name, cache, tmp_path / "run"), {"experiment": "e", "layout": "l"}
    fleet.crash_in = 35
    with pytest.raises(RuntimeError, match="power failure"):
        fleet.go(fleet.first())
    save_checkpoint(tmp_path, fleet.states[-1], {}, **ids)
    fleet.crash_in = 0
    fleet.go(load_newest(tmp_path, **ids)[0])
    same(fleet, whole[name])


@each_preset
def test_rounds_that_came_to_nothing_leave_nothing(
    name: str, whole: dict[str, Fleet], cache: Path, tmp_path: Path
) -> None:
    """Refused, lost for ten rounds, absent for twenty, refused again: as if it had never heard."""
    fleet = fleet_of(name, cache, tmp_path / "run", without_work_for_nothing)
    fleet.go(fleet.first())
    same(fleet, whole[name])


@each_preset
def test_what_an_absent_vehicle_keeps_is_not_touched(name: str, whole: dict[str, Fleet]) -> None:
    fleet = whole[name]
    goes = fleet.names[GOES]
    seen = [fleet.kept[round_][goes] for round_ in range(2, 34)]
    assert seen.count(seen[0]) == len(seen)
    if name in KEEPS_STATE:  # it goes on from its first round: the second did not count
        of = fleet.records[33].lineage  # the first round is of none
        written = {1: "round-000001.safetensors", 34: f"round-000034-{of}.safetensors"}
        assert set(fleet.kept[34][goes]) == set(written.values())
        assert fleet.kept[34][goes][written[1]] == fleet.kept[1][goes][written[1]]
    else:
        assert not fleet.kept[34][goes]


@each_preset
def test_the_server_counts_who_was_there_only_where_it_keeps_means(
    name: str, whole: dict[str, Fleet]
) -> None:
    tables = whole[name].states[-1].memory.get("fleet", {})
    assert sorted(tables.get("met", {})) == (whole[name].names if name in MEANS else [])


@each_preset
def test_who_joins_late_begins_as_everybody_does(name: str, whole: dict[str, Fleet]) -> None:
    """After a first update that was refused, too."""
    fleet = whole[name]
    joins = fleet.names[JOINS]
    assert not fleet.kept[33][joins]
    assert fleet.sent[35, joins] == fleet.as_new[joins]
