"""The engine against sites that are played: whatever they do, the round has an answer for each."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fleet.job import Act, Clock, Job, close, until
from torch import nn

from fleetseg.compression.codec import parse_codec
from fleetseg.compression.uplink import Uplink
from fleetseg.config import Experiment, FederationConfig, FleetConfig
from fleetseg.data.labels import LabelSpace
from fleetseg.errors import EngineError, FleetSegError, QuorumLost
from fleetseg.federation.cohort import Cohort
from fleetseg.federation.collect import RoundCollector, collect
from fleetseg.federation.messages import (
    Broadcast,
    Enrolment,
    Evaluation,
    Failure,
    NormReport,
    Update,
    taking_part,
)
from fleetseg.federation.replies import write_failure, write_reply
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState, layout_of
from fleetseg.federation.wire import PlainCodec, decode_broadcast, encode_broadcast, encode_update
from fleetseg.fleet.message_log import MessageLog
from fleetseg.fleet.protocol import PROTOCOL, labels_digest, write_enrolments
from fleetseg.fleet.server import engine as engine_module
from fleetseg.fleet.server.dispatcher import Event, TaskBatch, TaskDispatcher
from fleetseg.fleet.server.engine import FleetEngine
from fleetseg.fleet.server.enrolment import RunSpec
from fleetseg.fleet.sockets import Header, Listener, private_directory
from fleetseg.models.norm_statistics import NormSums
from fleetseg.runs.estimating import _Sums as EstimatedSums
from fleetseg.runs.scoring import _ClientScores as ClientScores

LAYOUT = layout_of(nn.Linear(3, 1, bias=False))
SPACE = LabelSpace("two", ("road", "car"), ((1, 1, 1), (2, 2, 2)), ("car",))
Reply = Update | Failure | Evaluation


def failed(kind: Any, reason: str, detail: str = "") -> Header:
    return write_failure(Failure("anybody", kind, reason, detail))


def state(*values: float) -> ModelState:
    return ModelState(torch.tensor(values or (1.0, 2.0, 3.0)), torch.empty(0, dtype=torch.int64))


def broadcast(round_: int = 1) -> Broadcast:
    return Broadcast(round_, state())


def enrolment(vehicle: str, **changes: Any) -> Enrolment:
    return replace(Enrolment(vehicle, 4, 10, (7, 3)), **changes)


def update(vehicle: str, round_: int = 1, **changes: Any) -> Update:
    values_F = torch.tensor([0.5, 0.25, float(len(vehicle))])
    change = ModelState(values_F, torch.zeros(0, dtype=torch.int64))
    return replace(Update(round_, vehicle, change, 4, 10, 2, 4, 0.5), **changes)


def vehicle_of(site: str, header: Header) -> str:
    return str(header["vehicles"].get(site, site))


def hello(job: Job, site: str, header: Header, vehicles: Sequence[str] = ()) -> None:
    enrolled = {v: enrolment(v) for v in vehicles or (site,)}
    told = {"enrolments": write_enrolments(enrolled), "machine": {"machine": "m"}}
    job.reply(header["task"], site, told)


def honest(job: Job, site: str, header: Header, payload: bytes) -> None:
    """Enrol, train and score as asked."""
    if header["what"] == "hello":
        hello(job, site, header)
        return
    job.sent(header["task"], site)
    if header["what"] == "revoked":
        job.reply(header["task"], site, failed("refused", "revoked"))
        return
    vehicle, round_ = vehicle_of(site, header), decode_broadcast(payload, LAYOUT).round
    if header["what"] == "train":
        data = encode_update(update(vehicle, round_), LAYOUT)
        job.reply(header["task"], site, {"update": round_}, data)
    else:
        told, data = scored({"rain": [[5, 1], [0, 4]]}, round_)
        job.reply(header["task"], site, told, data)


def scored(confs: Mapping[str, Any], round_: Any = 1) -> tuple[Header, bytes]:
    data = b"".join(np.array(rows, "<i8").tobytes() for rows in confs.values())
    return {"confs": list(confs), "round": round_}, data


def but(**others: Act) -> Act:
    """Honest sites, but for some that do something else than train."""

    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        special = others.get(site) if header["what"] != "hello" else None
        (special or honest)(job, site, header, payload)

    return act


def deaf(job: Job, site: str, header: Header, payload: bytes) -> None:
    """Never fetch a task."""


def fetches(job: Job, site: str, header: Header, payload: bytes) -> None:
    """Fetch a task and work on it for ever."""
    job.sent(header["task"], site)
    job.beat(site, busy=header["task"])


def answers(told: Any, data: bytes = b"") -> Act:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        job.sent(header["task"], site)
        job.reply(header["task"], site, told, data)

    return act


@dataclass
class FakeNetwork:
    told: str = ""
    back: frozenset[str] = frozenset()
    banned: frozenset[str] = frozenset()
    left_out: dict[str, str] = field(default_factory=dict)
    broken: FleetSegError | None = None
    kits: frozenset[str] = frozenset()

    def expected(self) -> frozenset[str]:
        return self.kits

    def trouble(self) -> str:
        return self.told

    def returned(self) -> frozenset[str]:
        return self.back

    def fatal(self) -> FleetSegError | None:
        return self.broken

    def revoked(self) -> frozenset[str]:
        return self.banned

    def quarantined(self) -> Mapping[str, str]:
        return self.left_out


@dataclass
class World:
    """An engine, and the means to move its world."""

    engine: FleetEngine
    dispatcher: TaskDispatcher
    clock: Clock
    network: FakeNetwork
    told: list[str]
    jobs: list[Job] = field(default_factory=list)

    def segment(self, act: Act = honest, sites: Sequence[str] = ("a", "b", "c")) -> Job:
        self.jobs.append(Job(self.dispatcher._listener.path, sites, act, f"job-{len(self.jobs)}"))
        number = len(self.jobs)
        until(lambda: self.dispatcher.segment == number, "the segment opens")
        return self.jobs[-1]

    def train(
        self, cohort: Sequence[str] = ("a", "b", "c"), deadline_s: float = 0.0, round_: int = 1
    ) -> dict[str, Any]:
        replies = self.engine.ask("train", dict.fromkeys(cohort, broadcast(round_)), deadline_s)
        return {r.client_id: outcome(r) for r in replies}


def outcome(reply: Reply) -> Any:
    return (reply.kind, reply.reason) if isinstance(reply, Failure) else "ok"


def sent(fleet: World) -> tuple[int, int]:
    meter = fleet.engine.meter()
    return meter.bytes_down, meter.bytes_up


MakeWorld = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[MakeWorld]:
    """Make a fleet engine and its dispatcher; `fleet` are its settings."""
    made: list[World] = []
    folder = private_directory()

    def make(
        assigned: Mapping[str, Sequence[str]] | None = None,
        codec: Any = None,
        federation: FederationConfig = FederationConfig(),  # noqa: B008 (frozen)
        **fleet: Any,
    ) -> World:
        clock, network, told = Clock(), FakeNetwork(), list[str]()
        dispatcher = TaskDispatcher(
            Listener(folder / "link"), MessageLog(tmp_path / "ingress.jsonl"), clock
        )
        experiment = Experiment(fleet=FleetConfig(**fleet), federation=federation)
        spec = RunSpec(
            "run-1",
            experiment,
            Exchange.of(LAYOUT),
            SPACE,
            codec or PlainCodec(LAYOUT),
            assigned=assigned,
            tell=told.append,
        )
        engine = FleetEngine(spec, dispatcher, network)
        engine._clock = clock
        made.append(World(engine, dispatcher, clock, network, told))
        return made[-1]

    yield make
    for one in made:
        for job in one.jobs:
            job.die()
        close(one.dispatcher)
    folder.rmdir()


# Enrolment


def test_every_site_enrols(world: MakeWorld) -> None:
    fleet = world()
    job = fleet.segment()
    assert fleet.engine.available() == {v: enrolment(v) for v in "abc"}
    assert fleet.engine.roster.machines["a"] == {"machine": "m"}
    (order,) = job.asked
    told = order["header"]
    assert (told["what"], told["run"], told["protocol"]) == ("hello", "run-1", PROTOCOL)
    assert told["since"] <= PROTOCOL
    assert "training.lr" in told["defaults"]
    assert told["layout"] == LAYOUT.digest
    assert told["labels"] == labels_digest(SPACE)
    assert abs(told["time"] - time.time()) < 60
    # Nobody is asked to enrol twice in a segment.
    fleet.engine.available()
    assert len(job.asked) == 1


def test_a_vehicle_that_is_left_out_stays_connected_and_takes_no_part(world: MakeWorld) -> None:
    fleet = world(federation=FederationConfig(exclude=("b",)))
    fleet.segment()
    there = fleet.engine.available()
    assert sorted(there) == ["a", "b", "c"]
    assert sorted(taking_part(there)) == ["a", "c"]
    assert there["b"].abstains == "left out by federation.exclude"
    assert fleet.told == ["b takes no part: left out by federation.exclude"]
    assert fleet.train(["a", "c"]) == {"a": "ok", "c": "ok"}


def test_a_vehicle_that_is_left_out_is_none_of_those_that_are_waited_for(world: MakeWorld) -> None:
    fleet = world(federation=FederationConfig(only=("a", "c")), min_vehicles=3, wait_s=0.05)
    fleet.segment()
    with pytest.raises(QuorumLost, match="too few vehicles; got a, c after"):
        fleet.engine.available()


def enrols(*enrolments: Enrolment) -> dict[str, Any]:
    return {"enrolments": write_enrolments({e.client_id: e for e in enrolments})}


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (failed("refused", "clock", "ten minutes ahead"), "clock"),
        (failed("abstained", "DataError", "no images"), "DataError"),
        (enrols(enrolment("b")), "identity"),
        (enrols(enrolment("a"), enrolment("mallory")), "identity"),
        (enrols(enrolment("ab")), "identity"),
        (enrols(enrolment("a", facts={"style": np.ones(3, np.float32)})), "facts"),
        (enrols(enrolment("a", histogram_C=(5, 3, 2))), "labels"),
        (enrols(enrolment("a", num_images=-1)), "count"),
        (enrols(enrolment("a", num_images=0)), "count"),
        ({"enrolments": 7}, "malformed"),
        ({}, "malformed"),
        ({"failure": 7}, "malformed"),
    ],
)
def test_a_site_that_is_refused_is_left_out_with_its_reason(
    world: MakeWorld, told: dict[str, Any], reason: str
) -> None:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        if site == "a":
            job.reply(header["task"], site, told)
        else:
            honest(job, site, header, payload)

    fleet = world()
    fleet.segment(act)
    assert set(fleet.engine.available()) == {"b", "c"}
    assert set(fleet.engine.roster.refused) == {"a"}
    assert fleet.engine.roster.refused["a"].reason == reason


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "facts"),
        ({"image_gaussian": [1.0, 2.0]}, "facts"),
        ({"image_gaussian": [[1.0, 2.0, 3.0]]}, "facts"),
        ({"image_gaussian": [1.0, 2.0, 3.0], "more": [1.0]}, "facts"),
        ({"image_gaussian": [math.nan, 2.0, 3.0]}, "malformed"),
        ({"image_gaussian": [1.0, math.inf, 3.0]}, "malformed"),
        ({"image_gaussian": [1.0, 1e300, 3.0]}, "malformed"),
        ({"image_gaussian": [1.0, 10**400, 3.0]}, "malformed"),
        ({"image_gaussian": [1.0, "2", 3.0]}, "malformed"),
        ({"image_gaussian": [0.0] * 100_000}, "malformed"),
        ([1.0], "malformed"),
    ],
)
def test_a_site_whose_vehicle_reports_bad_facts_is_left_out(
    world: MakeWorld, facts: Any, reason: str
) -> None:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        (entry,) = write_enrolments({site: enrolment(site)})
        told = facts if site == "a" else {"image_gaussian": [90.0, 900.0, 48.0]}
        job.reply(header["task"], site, {"enrolments": [{**entry, "facts": told}]})

    fleet = world(federation=FederationConfig(weights="fedgau"))
    fleet.segment(act)
    assert set(fleet.engine.available()) == {"b", "c"}
    assert {site: f.reason for site, f in fleet.engine.roster.refused.items()} == {"a": reason}


def test_a_site_speaks_for_the_vehicles_below_its_name_and_those_assigned(
    world: MakeWorld,
) -> None:
    def below(job: Job, site: str, header: Header, payload: bytes) -> None:
        hello(job, site, header, [site, f"{site}/1", f"{site}/2"])

    fleet = world()
    fleet.segment(below, ["a"])
    assert set(fleet.engine.available()) == {"a", "a/1", "a/2"}


def test_assigned_vehicles_belong_to_their_site_alone(world: MakeWorld) -> None:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        hello(job, site, header, {"a": ["x", "y"], "b": ["x"], "c": ["c"]}[site])

    fleet = world(assigned={"a": ["x", "y"], "b": ["z"]})
    fleet.segment(act)
    assert set(fleet.engine.available()) == {"x", "y"}
    assert {s: f.reason for s, f in fleet.engine.roster.refused.items()} == {
        "b": "identity",
        "c": "identity",
    }


def test_a_machine_that_is_no_table_are_left_out(world: MakeWorld) -> None:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        job.reply(header["task"], site, {**enrols(enrolment(site)), "machine": [site]})

    fleet = world()
    fleet.segment(act, ["a"])
    assert set(fleet.engine.available()) == {"a"}
    assert fleet.engine.roster.machines == {"a": {}}


def test_enrolment_does_not_wait_for_ever_for_one_that_says_nothing(world: MakeWorld) -> None:
    fleet = world(gather_s=10.0, silent_s=1000.0)

    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        if site != "b":
            hello(job, site, header)
        if site == "c":
            until(lambda: len(fleet.engine.roster.enrolled) == 2, "the others enrol")
            fleet.clock.jump(11)

    fleet.segment(act)
    assert set(fleet.engine.available()) == {"a", "c"}
    assert fleet.engine.roster.refused == {}


@pytest.mark.parametrize(
    "latecomers",
    [
        ("b",),
        ("b", "c"),
        ("b", "c", "d"),
    ],
    ids=str,
)
def test_who_enrols_late_is_welcome_and_holds_no_round_up(
    world: MakeWorld, latecomers: tuple[str, ...]
) -> None:
    fleet = world(gather_s=10.0, silent_s=3.0)
    told: list[Header] = []

    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        if header["what"] == "hello" and site in latecomers:
            told.append(header)
            if len(told) == len(latecomers):
                until(lambda: "a" in fleet.engine.roster.enrolled, "a enrols")
                fleet.clock.jump(11)
                for name in ("a", *latecomers):
                    job.beat(name)
        else:
            honest(job, site, header, payload)
        if header["what"] == "train":
            for name in latecomers:
                hello(job, name, told[0])

    # Opening their data takes these longer than the server waits for it.
    fleet.segment(act, ["a", *latecomers])
    assert set(fleet.engine.available()) == {"a"}
    assert fleet.train(["a"]) == {"a": "ok"}
    assert fleet.train(["a"], round_=2) == {"a": "ok"}
    assert set(fleet.engine.available()) == {"a", *latecomers}


# Rounds


def test_a_round_of_honest_vehicles(world: MakeWorld) -> None:
    fleet = world()
    job = fleet.segment()
    fleet.engine.available()
    replies = list(fleet.engine.ask("train", dict.fromkeys(["a", "b", "c"], broadcast(7))))
    assert [r.client_id for r in replies] == ["a", "b", "c"]
    for reply in replies:
        assert isinstance(reply, Update)
        expected = update(reply.client_id, 7)
        assert reply.change.digest() == expected.change.digest()
        assert replace(reply, change=expected.change) == expected
    (order,) = job.asked[1:]
    assert order["targets"] == ["a", "b", "c"]
    assert {k: order["header"][k] for k in ("what", "run", "round", "vehicles")} == {
        "what": "train",
        "run": "run-1",
        "round": 7,
        "vehicles": {},
    }
    assert fleet.engine.roster.last_round == {"a": 7, "b": 7, "c": 7}
    until(lambda: order["task"] in job.cancelled, "the task is taken back")


def test_only_the_cohort_is_asked(world: MakeWorld) -> None:
    fleet = world()
    job = fleet.segment()
    fleet.engine.available()
    assert fleet.train(["c"]) == {"c": "ok"}
    assert job.asked[1]["targets"] == ["c"]
    assert fleet.train([]) == {}
    assert len(job.asked) == 2


def test_bytes_are_counted_as_they_are_sent(world: MakeWorld) -> None:
    fleet = world()
    fleet.segment()
    fleet.engine.available()
    assert sent(fleet) == (0, 0)  # an enrolment has no payload
    assert set(fleet.train().values()) == {"ok"}
    down = len(encode_broadcast(broadcast(), LAYOUT))
    up = len(encode_update(update("a"), LAYOUT))
    assert sent(fleet) == (3 * down, 3 * up)


def test_vehicles_of_one_site_take_turns(world: MakeWorld) -> None:
    vehicles = {"a": ["a1", "a2", "a3"], "b": ["b1"]}

    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        if header["what"] == "hello":
            hello(job, site, header, vehicles[site])
        else:
            honest(job, site, header, payload)

    fleet = world(assigned=vehicles)
    job = fleet.segment(act, ["a", "b"])
    assert set(fleet.engine.available()) == {"a1", "a2", "a3", "b1"}
    assert fleet.train(["a3", "b1", "a1", "a2"]) == dict.fromkeys(["a1", "a2", "a3", "b1"], "ok")
    waves = [(o["targets"], o["header"]["vehicles"]) for o in job.asked[1:]]
    assert waves == [
        (["a", "b"], {"a": "a3", "b": "b1"}),
        (["a"], {"a": "a1"}),
        (["a"], {"a": "a2"}),
    ]
    assert fleet.engine.roster.last_round == {"a": 1, "b": 1}


def test_a_turn_begins_when_the_one_before_has_ended(world: MakeWorld) -> None:
    """A site is not lost for not fetching its second vehicle's task while it trains the first."""
    fleet = world(assigned={"a": ["x", "y"]}, fetch_s=5.0, silent_s=1000.0)
    waiting: list[str] = []

    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        if header["what"] == "hello":
            hello(job, site, header, ["x", "y"])
        elif header["vehicles"]["a"] == "x":
            fleet.clock.jump(4)
            honest(job, site, header, payload)
        else:
            waiting.append(header["task"])

    job = fleet.segment(act, ["a"])
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["x", "y"], broadcast()))
    assert outcome(next(replies)) == "ok"
    fleet.clock.jump(4)  # 8 s after it was asked, 4 s after its turn began
    task = until(lambda: waiting and waiting[0], "the second task")
    job.sent(task, "a")
    job.reply(task, "a", {"update": 1}, encode_update(update("y"), LAYOUT))
    assert outcome(next(replies)) == "ok"


def test_compressed_updates_are_unpacked(world: MakeWorld) -> None:
    codec = parse_codec("int8")
    assert codec is not None
    uplink = Uplink(codec, LAYOUT, 0)
    packed, _ = uplink.pack(update("a"), None)
    plain = encode_update(update("b"), LAYOUT)
    fleet = world(codec=uplink)
    fleet.segment(
        but(a=answers({"update": 1}, packed), b=answers({"update": 1}, plain)), ["a", "b"]
    )
    fleet.engine.available()
    replies = {
        r.client_id: r for r in fleet.engine.ask("train", dict.fromkeys(["a", "b"], broadcast()))
    }
    unpacked = replies["a"]
    assert isinstance(unpacked, Update)
    sent_F, got_F = update("a").change.values_F, unpacked.change.values_F
    assert torch.allclose(sent_F, got_F, atol=0.02)
    assert outcome(replies["b"]) == ("refused", "malformed")
    assert sent(fleet)[1] == len(packed) + len(plain)


@pytest.mark.parametrize(
    ("told", "data", "expected"),
    [
        ({"update": 1}, b"garbage", ("refused", "malformed")),
        ({"update": 1}, b"", ("refused", "malformed")),
        ({}, b"", ("refused", "malformed")),
        ({"update": 1}, encode_update(update("c"), LAYOUT), ("refused", "identity")),
        ({"update": 1}, encode_update(update("mallory"), LAYOUT), ("refused", "identity")),
        ({"update": 1}, encode_broadcast(broadcast(), LAYOUT), ("refused", "version")),
        (failed("abstained", "data", "no label"), b"", ("abstained", "data")),
        (failed("lost", "trainer-died"), b"", ("lost", "trainer-died")),
        ({"failure": ["dead", "x", "y"]}, b"", ("refused", "malformed")),
    ],
)
def test_a_bad_reply_is_its_vehicle_s_failure_alone(
    world: MakeWorld, told: dict[str, Any], data: bytes, expected: tuple[str, str]
) -> None:
    fleet = world()
    fleet.segment(but(b=answers(told, data)))
    fleet.engine.available()
    assert fleet.train() == {"a": "ok", "b": expected, "c": "ok"}
    assert fleet.engine.roster.last_round == {"a": 1, "c": 1}


def test_a_reply_to_no_task_or_of_a_site_that_was_not_asked_is_not_read(world: MakeWorld) -> None:
    data = encode_update(update("b"), LAYOUT)

    def meddles(job: Job, site: str, header: Header, payload: bytes) -> None:
        job.reply("train-999", "b", {"update": 1}, b"no task")
        job.reply(header["task"], "c", {"update": 1}, b"not asked")
        job.reply(header["task"], "stranger", {"update": 1}, b"unknown")
        job.sent(header["task"], "stranger")
        honest(job, site, header, payload)
        job.reply(header["task"], site, {"update": 1}, b"a second one")

    fleet = world()
    fleet.segment(but(a=meddles, b=answers({"update": 1}, data)))
    fleet.engine.available()
    assert fleet.train(["a", "b"]) == {"a": "ok", "b": "ok"}
    assert fleet.train(["a", "b"]) == {"a": "ok", "b": "ok"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_header_that_is_no_table_is_its_vehicle_s_failure_alone(world: MakeWorld) -> None:
    fleet = world(silent_s=3.0)
    fleet.segment(but(a=answers(7)))
    fleet.engine.available()
    outcomes = fleet.train()
    assert (outcomes["b"], outcomes["c"]) == ("ok", "ok")


def measured(vehicle: str, loss: Any) -> Act:
    told = {} if loss is None else {"received_loss": loss}
    data = encode_update(update(vehicle, measures=told), LAYOUT)
    return answers({"update": 1}, data)


@pytest.mark.parametrize("loss", [None, math.nan, math.inf, 1e300, "1", [1.0], {"a": 1.0}, True])
def test_bad_measures_are_their_vehicle_s_failure_alone(world: MakeWorld, loss: Any) -> None:
    settings = FederationConfig(aggregator="q-fedavg")
    fleet = world(federation=settings)
    acts = {"a": measured("a", 0.5), "b": measured("b", loss), "c": measured("c", 2.0)}
    fleet.segment(but(**acts))
    collector = RoundCollector(LAYOUT, settings)
    collector.open(1, Cohort(("a", "b", "c"), 3), fleet.engine.available(), state())
    collect(fleet.engine, "train", dict.fromkeys("abc", broadcast()), collector)
    assert sorted(a.client_id for a in collector.accepted) == ["a", "c"]
    assert [(f.client_id, f.reason) for f in collector.failures] == [("b", "measures")]
    assert np.isfinite(collector.take_mean_delta()).all()


def test_more_measures_than_a_header_holds_are_refused_unread(world: MakeWorld) -> None:
    many = {f"m{number}": 0.5 for number in range(100_000)}
    data = encode_update(update("b", measures=many), LAYOUT)
    fleet = world()
    fleet.segment(but(b=answers({"update": 1}, data)))
    fleet.engine.available()
    assert fleet.train() == {"a": "ok", "b": ("refused", "oversize"), "c": "ok"}


# Scores


def test_vehicles_score(world: MakeWorld) -> None:
    fleet = world()
    job = fleet.segment()
    fleet.engine.available()
    replies = list(fleet.engine.ask("evaluate", dict.fromkeys(["a", "c"], broadcast(3))))
    assert [r.client_id for r in replies] == ["a", "c"]
    for reply in replies:
        assert isinstance(reply, Evaluation)
        assert reply.round == 3
        assert np.array_equal(reply.conf_by_domain["rain"], [[5, 1], [0, 4]])
    assert job.asked[1]["header"]["what"] == "evaluate"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (scored({"rain": [[5, 1]]}), ("refused", "shape")),
        (({"confs": {}, "round": 1}, b""), ("refused", "malformed")),
        (({}, b""), ("refused", "malformed")),
        ((failed("abstained", "data"), b""), ("abstained", "data")),
    ],
)
def test_bad_scores_are_their_vehicle_s_failure_alone(
    world: MakeWorld, told: tuple[Header, bytes], expected: tuple[str, str]
) -> None:
    fleet = world()
    fleet.segment(but(b=answers(*told)))
    fleet.engine.available()
    replies = fleet.engine.ask("evaluate", dict.fromkeys(["a", "b", "c"], broadcast()))
    assert {r.client_id: outcome(r) for r in replies} == {"a": "ok", "b": expected, "c": "ok"}


ONE = {"rain": [[5, 1], [0, 4]]}


@pytest.mark.parametrize("task", ["evaluate", "evaluate-global", "evaluate-personal"])
@pytest.mark.parametrize(
    ("told", "why"),
    [
        (scored({"rain": [[11, 0], [0, 0]]}), "scores of b refused"),
        (scored({**ONE, "fog": [[1, 0], [0, 0]]}), "scores of b refused"),
        (scored({"rain": [[1 << 61, 1 << 61], [1 << 61, 1 << 61]]}), "refused"),
        (scored({"rain": [[1 << 62, 0], [0, 0]]}), "count"),
        (scored({"rain": [[-1, 0], [0, 0]]}), "count"),
        (scored({"rain": [[0] * 9] * 9}), "shape"),
        (({"confs": {"rain": [[5, 1], [0, 4]]}, "round": 1}, b""), "malformed"),
        (({"confs": ["rain"], "round": math.nan}, scored(ONE)[1]), "malformed"),
        (scored({f"d{k}": [[0, 0], [0, 0]] for k in range(500)}), "malformed"),
        (scored(ONE, 2), "scores of b refused"),
        (scored(ONE, None), "malformed"),
    ],
)
def test_scores_that_cannot_be_are_their_vehicle_s_failure_alone(
    world: MakeWorld, told: tuple[Header, bytes], why: str, task: str
) -> None:
    fleet = world()
    fleet.segment(but(b=answers(*told)))
    there = fleet.engine.available()
    with_frames = {v: replace(e, num_test_pixels=10) for v, e in there.items()}
    scores = ClientScores(with_frames, 1, 2)
    collect(fleet.engine, task, dict.fromkeys("abc", broadcast()), scores)
    assert sorted(scores.by_client) == ["a", "c"]
    (text,) = scores.refused
    assert "b" in text
    assert why in text


# Sums of what norm layers see

SUMS = NormSums(np.array([8]), np.array([4.0, 0.0]), np.array([2.0, 0.0]))


def norm_report(round_: int = 1, **changes: Any) -> tuple[Header, bytes]:
    return write_reply(NormReport(round_, "anybody", replace(SUMS, **changes)))


def test_sums_arrive_as_they_were_sent_and_their_bytes_count(world: MakeWorld) -> None:
    fleet = world()
    told, data = norm_report(3)
    fleet.segment(but(a=answers(told, data)), ["a"])
    fleet.engine.available()
    (reply,) = fleet.engine.ask("norm_statistics", {"a": broadcast(3)})
    assert isinstance(reply, NormReport)
    assert (reply.client_id, reply.round) == ("a", 3)
    for name, values in vars(SUMS).items():
        assert np.array_equal(getattr(reply.sums, name), values)
    assert sent(fleet)[1] == len(data) == reply.num_bytes == 40


HUGE = 1e300


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (norm_report(sums_C=np.array([np.nan, 0.0])), "non-finite"),
        (norm_report(squares_C=np.array([np.inf, 0.0])), "non-finite"),
        (norm_report(squares_C=np.array([HUGE, 0.0])), "magnitude"),
        (norm_report(sums_C=np.array([HUGE, 0.0])), "variance"),
        (norm_report(squares_C=np.array([-2.0, 0.0])), "variance"),
        (norm_report(counts_L=np.array([9])), "count"),
        (norm_report(counts_L=np.array([-(1 << 63)])), "count"),
        (norm_report(counts_L=np.array([4, 4])), "shape"),
        (norm_report(sums_C=np.zeros(3), squares_C=np.zeros(3)), "shape"),
        (norm_report(2), "stale"),
        (({"norm_sums": [1, 2], "round": 1}, b""), "malformed"),
        (({"norm_sums": [1, 2], "round": 1}, b"\0" * 41), "malformed"),
        (({"norm_sums": [1, 1 << 60], "round": 1}, b"\0" * 40), "malformed"),
        (({"norm_sums": [1, 2], "round": "1"}, norm_report()[1]), "malformed"),
        (({"norm_sums": {"counts_L": [8]}, "round": 1}, b""), "malformed"),
        (({"update": 1}, encode_update(update("b"), LAYOUT)), "unasked"),
        (scored({"rain": [[5, 1], [0, 4]]}), "unasked"),
        (({}, b""), "malformed"),
    ],
)
def test_bad_sums_are_their_vehicle_s_failure_alone(
    world: MakeWorld, told: tuple[Header, bytes], reason: str
) -> None:
    fleet = world()
    fleet.segment(but(a=answers(*norm_report()), b=answers(*told), c=answers(*norm_report())))
    there = fleet.engine.available()
    sums = EstimatedSums(there, there, 1, replace(SUMS, counts_L=np.array([2])), np.array([2]))
    failures = []
    collect(
        fleet.engine,
        "norm_statistics",
        dict.fromkeys("abc", broadcast()),
        sums,
        replied=lambda reply, failure: failures.append(failure),
    )
    assert sums.answered == {"a", "c"}
    assert [(f.client_id, f.kind, f.reason) for f in failures if f] == [("b", "refused", reason)]
    assert sums.total.sums_C.tolist() == [8.0, 0.0]


@pytest.mark.parametrize("task", ["train", "evaluate", "evaluate-global", "evaluate-personal"])
def test_sums_where_something_else_was_asked_for_do_no_harm(world: MakeWorld, task: str) -> None:
    fleet = world()
    fleet.segment(but(b=answers(*norm_report())))
    there = fleet.engine.available()
    if task == "train":
        collector: Any = RoundCollector(LAYOUT, FederationConfig())
        collector.open(1, Cohort(("a", "b", "c"), 3), there, state())
    else:
        with_frames = {v: replace(e, num_test_pixels=10) for v, e in there.items()}
        collector = ClientScores(with_frames, 1, 2)
    collect(fleet.engine, task, dict.fromkeys("abc", broadcast()), collector)
    if task == "train":
        assert sorted(a.client_id for a in collector.accepted) == ["a", "c"]
        assert [(f.client_id, f.reason) for f in collector.failures] == [("b", "malformed")]
    else:
        assert sorted(collector.by_client) == ["a", "c"]
        assert len(collector.refused) == 1


# Who does not answer


def started(fleet: World, deadline_s: float = 0.0) -> Iterator[Reply]:
    """Begin a round of a and b, and take the answer of b, which comes after all that a does."""
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b"], broadcast()), deadline_s)
    assert next(replies).client_id == "b"
    return replies


def test_past_the_deadline_a_vehicle_is_late(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0)
    fleet.segment(but(a=fetches))
    replies = started(fleet, deadline_s=100.0)
    fleet.clock.jump(101)
    assert [(r.client_id, outcome(r)) for r in replies] == [("a", ("late", "deadline"))]


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_without_a_deadline_it_is_what_turns_have_taken(world: MakeWorld, task: str) -> None:
    fleet = world(silent_s=10**9, fetch_s=10**9, first_turn_s=3600.0)
    job = fleet.segment(but(a=fetches))

    def ask(after_s: float) -> Any:
        fleet.engine.available()
        replies = fleet.engine.ask(task, {"a": broadcast()})
        asked = len(job.asked)

        def later() -> None:
            until(lambda: len(job.asked) > asked, "a is asked")
            name = job.asked[-1]["task"]
            until(lambda: fleet.dispatcher.sites["a"].busy == name, "a is at work")
            fleet.clock.jump(after_s)
            if after_s != late_s:
                scored = Evaluation(1, "a", {"rain": np.array([[5, 1], [0, 4]])})
                updated = {"update": 1}, encode_update(update("a"), LAYOUT)
                job.reply(name, "a", *(updated if task == "train" else write_reply(scored)))

        thread = threading.Thread(target=later)
        thread.start()
        answers = [outcome(r) for r in replies]
        thread.join(20)
        return answers

    late_s = 3601.0
    assert ask(3500.0) == ["ok"]  # a first turn: a network is compiled, images are decoded
    for _ in range(2):
        assert ask(100.0) == ["ok"]
    assert ask(450.0) == ["ok"]
    late_s = 5 * (100.0 + 450.0) / 2 + 30
    assert ask(late_s) == [("late", "deadline")]


def test_answers_that_are_in_are_read_before_anyone_is_judged(world: MakeWorld) -> None:
    """A vehicle that has answered is idle; folding the answers before its own took a while."""
    fleet = world(silent_s=1000.0, fetch_s=20.0)
    job = fleet.segment(but(b=fetches))
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b"], broadcast()))
    assert outcome(next(replies)) == "ok"
    job.reply(job.asked[-1]["task"], "b", {"update": 1}, encode_update(update("b"), LAYOUT))
    job.beat("b")
    until(lambda: not fleet.dispatcher.sites["b"].busy, "b is idle")
    fleet.clock.jump(21)  # the server folds the update of a
    assert [(r.client_id, outcome(r)) for r in replies] == [("b", "ok")]


def test_without_a_deadline_nobody_is_late_in_a_first_turn(world: MakeWorld) -> None:
    fleet = world(silent_s=10**9, first_turn_s=10**7)
    fleet.segment(but(a=fetches))
    replies = started(fleet)
    until(lambda: fleet.dispatcher.sites["a"].busy, "a is at work")
    fleet.clock.jump(10**6)
    task = fleet.dispatcher.sites["a"].busy
    fleet.jobs[0].reply(task, "a", {"update": 1}, encode_update(update("a"), LAYOUT))
    assert [outcome(r) for r in replies] == ["ok"]


def test_a_vehicle_that_falls_silent_is_lost(world: MakeWorld) -> None:
    fleet = world(silent_s=15.0)
    job = fleet.segment(but(a=fetches))
    replies = started(fleet)
    fleet.clock.jump(16)
    job.beat("b")
    assert [(r.client_id, outcome(r)) for r in replies] == [("a", ("lost", "silent"))]


def fall_silent(fleet: World) -> None:
    """All vehicles stop at once; the job itself does not."""
    fleet.clock.jump(16)
    until(lambda: fleet.dispatcher.all_silent(15.0), "nobody can be heard")


def test_when_all_fall_silent_at_once_nobody_is_lost(world: MakeWorld) -> None:
    """A server that was paused, or its link: whoever is heard again answers the same round."""
    fleet = world(silent_s=15.0, wait_s=300.0)
    job = fleet.segment(but(a=fetches))
    replies = started(fleet)
    fall_silent(fleet)
    answered: list[Any] = []
    thread = threading.Thread(target=lambda: answered.extend(map(outcome, replies)))
    thread.start()
    until(lambda: fleet.told, "a person hears of it")
    fleet.clock.jump(200)  # a long time, but nobody's
    assert thread.is_alive()
    task = fleet.dispatcher.sites["a"].busy
    for site in "abc":
        job.beat(site, busy=task if site == "a" else "")
    job.reply(task, "a", {"update": 1}, encode_update(update("a"), LAYOUT))
    thread.join(20)
    assert answered == ["ok"]
    assert fleet.told == ["no vehicle can be heard; waiting for the network"]


def test_when_nobody_is_heard_any_more_the_wait_is_bounded(world: MakeWorld) -> None:
    fleet = world(silent_s=15.0, wait_s=300.0)
    fleet.segment(but(a=fetches))
    replies = started(fleet)
    fall_silent(fleet)

    def later() -> None:
        until(lambda: fleet.told, "a person hears of it")
        fleet.clock.jump(301)

    thread = threading.Thread(target=later)
    thread.start()
    assert [(r.client_id, outcome(r)) for r in replies] == [("a", ("lost", "silent"))]
    thread.join(20)
    # That was the wait for vehicles: the next round has no other.
    with pytest.raises(QuorumLost, match="too few vehicles"):
        fleet.engine.available()


def test_a_segment_whose_vehicles_can_be_reached_elsewhere_is_renewed_in_mid_round(
    world: MakeWorld,
) -> None:
    fleet = world(silent_s=15.0, wait_s=300.0)
    job = fleet.segment(but(a=fetches))
    replies = started(fleet)
    fall_silent(fleet)
    fleet.network.back = frozenset("abc")

    def replace_it() -> None:
        job.ended.wait(20)
        fleet.network.back = frozenset()
        fleet.segment()

    thread = threading.Thread(target=replace_it)
    thread.start()
    assert [outcome(r) for r in replies] == ["ok"]
    thread.join(20)
    assert fleet.dispatcher.segment == 2


def test_while_the_job_hangs_nobody_is_lost(world: MakeWorld) -> None:
    """The network replaces it; who had not answered is asked again."""
    fleet = world({"a": ["a"]}, silent_s=15.0)
    job = fleet.segment(but(a=fetches), sites=["a"])
    replies = fleet.engine.ask("train", {"a": broadcast()})
    fleet.engine.available()
    job.stopped = True
    until(lambda: job.ended.is_set() or fleet.dispatcher.job_silent_s() > 0.2, "it says nothing")
    fleet.clock.jump(60)

    def replace_it() -> None:
        until(lambda: job.asked[-1]["header"]["what"] == "train", "the vehicle is asked")
        time.sleep(0.5)  # five looks at who is silent
        fleet.dispatcher.drop()
        fleet.segment(sites=["a"])

    thread = threading.Thread(target=replace_it)
    thread.start()
    assert [outcome(r) for r in replies] == ["ok"]
    thread.join(20)


def test_a_vehicle_that_the_network_has_lost_is_lost_at_once(world: MakeWorld) -> None:
    fleet = world()
    job = fleet.segment(but(a=fetches))
    replies = started(fleet)
    job.send({"is": "gone", "site": "a"})
    assert [(r.client_id, outcome(r)) for r in replies] == [("a", ("lost", "silent"))]


def test_a_vehicle_without_progress_is_lost_whatever_its_signs_of_life(world: MakeWorld) -> None:
    fleet = world(silent_s=15.0, stalled_s=300.0)
    job = fleet.segment(but(a=fetches, b=fetches))
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b"], broadcast()))
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.extend((r.client_id, outcome(r)) for r in replies)
    )
    thread.start()
    until(lambda: all(fleet.dispatcher.sites[s].busy for s in "ab"), "both are at work")
    task = fleet.dispatcher.sites["a"].busy
    for step in range(33):  # 330 s: a step a minute is enough, standing still for 315 s is not
        assert not answers
        fleet.clock.jump(10)
        job.beat("a", busy=task, progress="train 7 (99)")
        job.beat("b", busy=task, progress=f"train {step // 6} (98)")
        job.beat("c")
        until(
            lambda s=step: fleet.dispatcher.sites["b"].progress == f"train {s // 6} (98)", "a beat"
        )  # type: ignore[misc]
    until(lambda: answers, "a is given up")
    assert answers == [("a", ("lost", "stalled"))]
    job.reply(task, "b", {"update": 1}, encode_update(update("b"), LAYOUT))
    thread.join(20)
    assert answers == [("a", ("lost", "stalled")), ("b", "ok")]
    assert set(fleet.engine.available()) == {"b", "c"}
    job.beat("a", progress="idle 1 (101)")  # another trainer
    until(lambda: "a" in fleet.engine.available(), "it is asked again")


def test_a_vehicle_whose_idle_trainer_hangs_is_not_asked(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0, stalled_s=300.0)
    job = fleet.segment()
    fleet.engine.available()
    for site in "abc":
        job.beat(site, progress="idle 1 (7)")
    until(lambda: fleet.dispatcher.sites["c"].progress, "signs of life")
    fleet.clock.jump(1301)
    for site, steps in zip("abc", (1, 2, 2), strict=True):
        job.beat(site, progress=f"idle {steps} (7)")
    until(lambda: fleet.dispatcher.sites["c"].progress == "idle 2 (7)", "signs of life")
    until(lambda: fleet.dispatcher.stalled_s("a") > 1300, "a makes no progress")
    assert set(fleet.engine.available()) == {"b", "c"}


def test_an_idle_vehicle_that_does_not_fetch_its_task_is_lost(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0, fetch_s=20.0)
    fleet.segment(but(a=deaf))
    replies = started(fleet)
    fleet.clock.jump(21)
    assert [(r.client_id, outcome(r)) for r in replies] == [("a", ("lost", "not-fetched"))]


def test_a_vehicle_at_work_on_something_else_may_fetch_later(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0, fetch_s=20.0)
    job = fleet.segment(but(a=deaf))
    fleet.engine.available()
    job.beat("a", busy="train-0")
    until(lambda: fleet.dispatcher.sites["a"].busy, "a says that it is busy")
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b"], broadcast()))
    assert next(replies).client_id == "b"
    fleet.clock.jump(500)
    task = job.asked[-1]["task"]
    job.sent(task, "a")
    job.reply(task, "a", {"update": 1}, encode_update(update("a"), LAYOUT))
    assert [outcome(r) for r in replies] == ["ok"]


def test_a_straggler_is_not_available_until_it_is_free(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0)
    job = fleet.segment(but(a=fetches))
    replies = started(fleet, deadline_s=100.0)
    until(lambda: fleet.dispatcher.sites["a"].busy, "a is at work")
    task = fleet.dispatcher.sites["a"].busy
    fleet.clock.jump(101)
    assert len(list(replies)) == 1
    assert set(fleet.engine.available()) == {"b", "c"}
    job.beat("a", busy=task)
    job.beat("b", busy="heard")
    until(lambda: fleet.dispatcher.sites["b"].busy == "heard", "the beats")
    assert set(fleet.engine.available()) == {"b", "c"}
    job.beat("a", busy="")
    until(lambda: not fleet.dispatcher.sites["a"].busy, "a is free")
    assert set(fleet.engine.available()) == {"a", "b", "c"}


def test_a_straggler_s_late_answer_makes_it_available(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0)
    job = fleet.segment(but(a=fetches))
    replies = started(fleet, deadline_s=100.0)
    fleet.clock.jump(101)
    assert len(list(replies)) == 1
    assert set(fleet.engine.available()) == {"b", "c"}
    up = sent(fleet)[1]
    job.send({"is": "late", "site": "a", "bytes": 1000})
    until(lambda: sent(fleet)[1] == up + 1000, "the late answer")
    assert set(fleet.engine.available()) == {"a", "b", "c"}


def test_a_vehicle_that_never_fetched_its_task_is_no_straggler(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0, fetch_s=1000.0)
    fleet.segment(but(a=deaf))
    replies = started(fleet, deadline_s=100.0)
    fleet.clock.jump(101)
    assert [outcome(r) for r in replies] == [("late", "deadline")]
    assert set(fleet.engine.available()) == {"a", "b", "c"}


def test_what_has_come_before_the_deadline_is_read_after_it(world: MakeWorld) -> None:
    fleet = world(silent_s=1000.0)
    job = fleet.segment(but(c=fetches))
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b", "c"], broadcast()), 100.0)
    assert next(replies).client_id == "a"
    until(lambda: fleet.dispatcher.sites["c"].busy, "b has answered, and c is at work")
    fleet.clock.jump(101)  # the server was busy with the update of a
    assert {r.client_id: outcome(r) for r in replies} == {"b": "ok", "c": ("late", "deadline")}
    assert set(fleet.engine.available()) == {"a", "b"}
    assert not job.ended.is_set()


def test_a_surplus_vehicle_at_work_is_not_available_until_it_is_free(world: MakeWorld) -> None:
    fleet = world()
    job = fleet.segment(but(a=fetches))
    replies = started(fleet)
    until(lambda: fleet.dispatcher.sites["a"].busy, "a is at work")
    replies.close()  # type: ignore[attr-defined]
    until(lambda: job.asked[1]["task"] in job.cancelled, "its task is taken back")
    assert set(fleet.engine.available()) == {"b", "c"}


def test_a_round_that_is_closed_early_leaves_nothing_to_the_next(world: MakeWorld) -> None:
    fleet = world()
    job = fleet.segment(but(a=fetches))
    replies = started(fleet)
    replies.close()  # type: ignore[attr-defined]
    until(lambda: job.asked[1]["task"] in job.cancelled, "its task is taken back")
    old = job.asked[1]["task"]
    job.reply(old, "a", {"update": 1}, encode_update(update("a"), LAYOUT))
    assert fleet.train(["b", "c"], round_=2) == {"b": "ok", "c": "ok"}


def test_silent_vehicles_are_not_available(world: MakeWorld) -> None:
    fleet = world(silent_s=15.0)
    job = fleet.segment()
    assert set(fleet.engine.available()) == {"a", "b", "c"}
    fleet.clock.jump(16)
    job.beat("c")
    until(lambda: fleet.dispatcher.silent_s("a") > 15, "the others' silence is noticed")
    until(lambda: fleet.dispatcher.silent_s("c") < 15, "a sign of life")
    assert set(fleet.engine.available()) == {"c"}


# Segments


def while_waiting(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something that an batch hears of, once, while the engine waits for it."""
    original, todo = TaskBatch.next, [action]

    def then(self: TaskBatch, timeout_s: float) -> Event | None:
        if todo and self.events.empty():
            todo.pop()()
            until(lambda: not self.events.empty(), "an event")
        return original(self, timeout_s)

    monkeypatch.setattr(TaskBatch, "next", then)


def test_a_segment_lost_in_a_round_costs_no_answer(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have answered are not asked again; the others are, for the same round."""
    fleet = world()
    first = fleet.segment(but(a=fetches, b=fetches))
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b", "c"], broadcast(4)))
    assert next(replies).client_id == "c"
    while_waiting(monkeypatch, lambda: (first.die(), fleet.segment()))
    assert {r.client_id: outcome(r) for r in replies} == {"a": "ok", "b": "ok"}
    asked = fleet.jobs[1].asked
    assert [o["header"]["what"] for o in asked] == ["hello", "train"]
    assert asked[1]["targets"] == ["a", "b"]
    assert asked[1]["header"]["round"] == 4
    assert fleet.engine.roster.segment == 2
    assert fleet.engine.roster.last_round == {"a": 4, "b": 4, "c": 4}


def test_a_vehicle_that_is_not_in_the_new_segment_is_lost(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = world()
    first = fleet.segment(but(a=fetches, b=fetches))
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b", "c"], broadcast()))
    assert next(replies).client_id == "c"
    while_waiting(monkeypatch, lambda: (first.die(), fleet.segment(sites=["b", "c"])))
    assert {r.client_id: outcome(r) for r in replies} == {"a": ("lost", "not-back"), "b": "ok"}
    assert set(fleet.engine.available()) == {"b", "c"}


@pytest.mark.parametrize("back", [("a", "c"), ()], ids=str)
def test_a_segment_that_ends_while_an_update_is_folded_makes_nobody_silent(
    world: MakeWorld, back: tuple[str, ...]
) -> None:
    """As soon as the engine is asked for the next reply, it looks who is silent: all are."""
    fleet = world(outage_s=100.0)
    first = fleet.segment(but(b=fetches, c=fetches))
    fleet.engine.available()
    replies = fleet.engine.ask("train", dict.fromkeys(["a", "b", "c"], broadcast()))
    assert next(replies).client_id == "a"
    until(lambda: fleet.dispatcher.sites["c"].busy, "b and c are at work")
    first.die()
    until(lambda: not fleet.dispatcher.job, "the segment ends")
    threading.Timer(0.3, fleet.segment, [honest, back or ("a", "b", "c")]).start()
    if back:
        until(lambda: fleet.dispatcher.job, "the next segment")
    outcomes = {r.client_id: outcome(r) for r in replies}
    until(lambda: fleet.dispatcher.segment == 2, "the next segment")
    assert ("lost", "silent") not in outcomes.values()


def test_a_segment_lost_between_rounds_is_waited_for(world: MakeWorld) -> None:
    fleet = world()
    fleet.segment()
    fleet.engine.available()
    fleet.jobs[0].die()
    until(lambda: not fleet.dispatcher.job, "the segment ends")
    fleet.segment(sites=["a"])
    assert set(fleet.engine.available()) == {"a"}


def test_a_segment_lost_while_sites_enrol_is_begun_again(world: MakeWorld) -> None:
    fleet = world()
    seen = []

    def dies(job: Job, site: str, header: Header, payload: bytes) -> None:
        hello(job, site, header)
        seen.append(site)
        if len(seen) == 2:
            job._connection.close()
            fleet.segment()

    fleet.segment(dies)
    assert set(fleet.engine.available()) == {"a", "b", "c"}
    assert fleet.engine.roster.segment == 2


def test_the_deadline_holds_over_segments(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = world(silent_s=1000.0)
    first = fleet.segment(but(a=fetches))
    replies = started(fleet, deadline_s=100.0)

    def crash() -> None:
        first.die()
        fleet.clock.jump(101)
        fleet.segment(but(a=fetches))

    while_waiting(monkeypatch, crash)
    assert [(r.client_id, outcome(r)) for r in replies] == [("a", ("late", "deadline"))]
    assert fleet.engine.roster.segment == 2


def renewed(fleet: World, act: Act = honest, sites: Sequence[str] = ("a", "b", "c")) -> int:
    """Ask who is available; another segment begins where this one ends. Returns its number."""
    first, over = fleet.jobs[-1], threading.Event()

    def follow() -> None:
        while not over.is_set():
            if first.ended.wait(0.01):
                fleet.segment(act, sites)
                return

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    fleet.engine.available()
    over.set()
    following.join()
    return fleet.dispatcher.segment


def test_a_segment_is_renewed_after_its_rounds(world: MakeWorld) -> None:
    fleet = world(segment_rounds=2, renew_s=10**6)
    fleet.segment()
    fleet.engine.available()
    for round_, segment in ((1, 1), (2, 2), (3, 2), (4, 3)):
        fleet.train(round_=round_)
        assert renewed(fleet) == segment
        assert fleet.engine.roster.segment == segment
    assert fleet.engine.roster.last_round == dict.fromkeys("abc", 4)
    assert fleet.engine.segment_ends() == {"length": 2, "lost": 0}


def test_a_segment_is_renewed_for_a_vehicle_that_came_back(world: MakeWorld) -> None:
    fleet = world(renew_s=60.0, silent_s=1000.0)
    fleet.segment()
    fleet.engine.available()
    fleet.network.back = frozenset(["d"])
    assert renewed(fleet) == 1  # too early
    fleet.clock.jump(61)
    fleet.network.back = frozenset()
    assert renewed(fleet) == 1  # and nobody waits
    fleet.network.back = frozenset(["d"])
    assert renewed(fleet) == 2
    assert fleet.engine.segment_ends() == {"returned": 1, "lost": 0}
    fleet.dispatcher.drop()
    until(lambda: not fleet.dispatcher.job, "the segment is over")
    assert fleet.engine.segment_ends() == {"returned": 1, "lost": 1}


def test_for_one_of_many_a_segment_is_renewed_later_than_for_some(world: MakeWorld) -> None:
    """Two of a hundred are as many as one of fifty, for whom it is renewed as told."""
    fleet = world(renew_s=60.0, silent_s=1000.0)
    sites = [f"car-{k}" for k in range(100)]
    fleet.segment(sites=sites)
    fleet.engine.available()
    fleet.network.back = frozenset(["d"])
    fleet.clock.jump(119)
    assert renewed(fleet, sites=sites) == 1
    fleet.network.back = frozenset(["d", "e"])
    assert renewed(fleet, sites=sites) == 2
    fleet.network.back = frozenset(["d"])
    fleet.clock.jump(121)
    assert renewed(fleet, sites=sites) == 3


def test_a_segment_is_not_renewed_in_a_round(world: MakeWorld) -> None:
    fleet = world(segment_rounds=1, renew_s=0.0)
    job = fleet.segment()
    fleet.engine.available()
    fleet.network.back = frozenset(["d"])
    assert set(fleet.train().values()) == {"ok"}
    assert not job.ended.is_set()


# Who is revoked


def test_a_revoked_vehicle_is_not_available_and_hears_why_it_must_leave(world: MakeWorld) -> None:
    fleet = world(renew_s=10**6)
    first = fleet.segment()
    assert set(fleet.engine.available()) == {"a", "b", "c"}
    fleet.network.banned = frozenset(["b"])
    assert renewed(fleet, sites=["a", "c"]) == 2
    assert fleet.engine.segment_ends() == {"revoked": 1, "lost": 0}
    assert set(fleet.engine.available()) == {"a", "c"}
    revoked = first.asked[-1]
    assert revoked["targets"] == ["b"]
    assert revoked["header"]["what"] == "revoked"
    assert renewed(fleet) == 2  # it is not there any more, so the segment goes on


def test_a_vehicle_revoked_in_mid_round_is_refused(world: MakeWorld) -> None:
    fleet = world()
    fleet.segment(but(a=fetches))
    replies = started(fleet)
    until(lambda: fleet.dispatcher.sites["a"].busy, "a is at work")
    fleet.network.banned = frozenset(["a"])
    task, data = fleet.dispatcher.sites["a"].busy, encode_update(update("a"), LAYOUT)
    fleet.jobs[0].reply(task, "a", {"update": 1}, data)
    assert [(r.client_id, outcome(r)) for r in replies] == [("a", ("refused", "revoked"))]


def test_a_revoked_vehicle_that_says_nothing_is_not_waited_for(world: MakeWorld) -> None:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        if header["what"] == "revoked":
            fleet.clock.jump(10)
        else:
            honest(job, site, header, payload)

    fleet = world(renew_s=10**6)
    fleet.segment(act)
    fleet.engine.available()
    fleet.network.banned = frozenset(["b"])
    assert renewed(fleet, sites=["a", "c"]) == 2
    assert fleet.engine.segment_ends() == {"revoked": 1, "lost": 0}


# When it cannot go on


def test_too_few_vehicles_is_said_with_who_was_refused(world: MakeWorld) -> None:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        if site == "b":
            job.reply(header["task"], site, failed("refused", "clock", "an hour ahead"))
        else:
            honest(job, site, header, payload)

    fleet = world(min_vehicles=3, wait_s=0.05)
    fleet.segment(act)
    with pytest.raises(QuorumLost) as caught:
        fleet.engine.available()
    text = str(caught.value)
    assert text.startswith(
        "too few vehicles; got a, c after 0 s; refused: b: clock (an hour ahead)"
    )
    assert "expected 3 (fleet.min_vehicles)" in text
    assert "--resume" in text
    assert fleet.told == ["2 of 3 vehicles are here; waiting for more"]


def test_who_is_left_out_for_a_time_is_said_once(world: MakeWorld) -> None:
    fleet = world()
    fleet.segment(sites=("a", "b"))
    fleet.network.left_out = {"c": "its part of the job has failed"}
    for _ in range(2):
        fleet.engine.available()
    fleet.network.left_out = {}
    fleet.engine.available()
    told = [text for text in fleet.told if text.startswith("c ")]
    assert told == ["c is left out: its part of the job has failed", "c is tried again"]


def test_too_few_vehicles_is_said_with_who_is_left_out(world: MakeWorld) -> None:
    fleet = world(wait_s=0.05, min_vehicles=3)
    fleet.segment(sites=("a", "b"))
    fleet.network.left_out = {"c": "its part failed"}
    with pytest.raises(QuorumLost, match="left out: c: its part failed"):
        fleet.engine.available()


@pytest.mark.parametrize(
    ("federation", "kits", "least"),
    [
        ({}, "abcde", 3),  # half of all
        ({"quorum": 0.0}, "abcde", 1),
        ({"cohort": 2}, "abcde", 1),  # of many that come and go, two are asked
        ({"cohort": 0.8, "quorum": 1.0}, "abcde", 4),
        ({"exclude": ("d", "e")}, "abcde", 2),
        ({}, "", 1),
    ],
)
def test_without_a_number_it_is_a_quorum_of_the_whole_fleet(
    world: MakeWorld, federation: dict[str, Any], kits: str, least: int
) -> None:
    fleet = world(federation=FederationConfig(**federation))
    fleet.network.kits = frozenset(kits)
    assert fleet.engine._min_vehicles() == least


def test_of_a_depot_its_vehicles_count(world: MakeWorld) -> None:
    fleet = world({"a": ["a-1", "a-2", "a-3"], "b": ["b-1"]}, wait_s=0.05)
    fleet.network.kits = frozenset("ab")
    assert fleet.engine._min_vehicles() == 2


def test_vehicles_of_a_site_that_is_left_out_are_not_waited_for(world: MakeWorld) -> None:
    fleet = world(assigned={"a": ["x", "y", "z"], "b": ["w"]})
    for kits, least in (("ab", 2), ("b", 1), ("", 1)):
        fleet.network.kits = frozenset(kits)
        assert fleet.engine._min_vehicles() == least


def test_nobody_at_all_is_too_few(world: MakeWorld) -> None:
    fleet = world(wait_s=0.05, gather_s=0.05)
    fleet.segment(deaf, ["a"])
    with pytest.raises(QuorumLost, match="too few vehicles; got none after"):
        fleet.engine.available()


def test_vehicles_that_come_in_time_are_waited_for(world: MakeWorld) -> None:
    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        fleet.network.back = frozenset()
        honest(job, site, header, payload)

    fleet = world(min_vehicles=2, renew_s=0.0)
    fleet.segment(sites=["a"])
    fleet.network.back = frozenset(["b"])
    assert renewed(fleet, act, ["a", "b"]) == 2
    assert set(fleet.engine.available()) == {"a", "b"}


def test_no_connection_ends_the_run_and_says_why(world: MakeWorld) -> None:
    fleet = world(outage_s=0.05)
    fleet.network.told = "the server is starting"
    with pytest.raises(EngineError) as caught:
        fleet.engine.available()
    text = str(caught.value)
    assert text.startswith("no connection to the fleet for 0 s; got the server is starting")
    assert "--resume" in text
    assert fleet.told == ["the server is starting"]


def test_what_waiting_does_not_mend_ends_the_run_at_once(world: MakeWorld) -> None:
    fleet = world()
    fleet.network.broken = EngineError("the disk is full")
    with pytest.raises(EngineError, match="the disk is full"):
        fleet.engine.available()


def test_a_connection_lost_for_good_in_a_round_ends_the_run(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = world(outage_s=100.0)
    first = fleet.segment(but(a=fetches))
    replies = started(fleet)

    class Late(FakeNetwork):
        def trouble(self) -> str:
            fleet.clock.jump(60)
            return ""

    fleet.engine._network = Late()
    while_waiting(monkeypatch, first.die)
    with pytest.raises(EngineError, match="no connection to the fleet for 100 s"):
        next(replies)


def test_what_a_person_hears_while_waiting_is_said_once(world: MakeWorld) -> None:
    fleet = world(outage_s=0.5)
    fleet.network.told = "waiting for b"
    with pytest.raises(EngineError):
        fleet.engine.available()
    assert fleet.told == ["waiting for b"]


# Releases


def test_whoever_is_there_is_offered_the_release_with_what_each_drives(world: MakeWorld) -> None:
    fleet, offered = world(), list[Any]()
    drives = {"release": 2, "digest": "0" * 64}

    class Offers:
        def poll(self, drives: Mapping[str, Any], not_to: frozenset[str]) -> None:
            offered.append((dict(drives), not_to))

    def act(job: Job, site: str, header: Header, payload: bytes) -> None:
        told = {"enrolments": write_enrolments({site: enrolment(site)}), "machine": {}}
        job.reply(header["task"], site, {**told, "drives": drives} if site == "a" else told)

    fleet.segment(act)
    fleet.network.banned = frozenset("c")
    fleet.engine._offers = Offers()  # type: ignore[assignment]
    fleet.engine._enrol()
    fleet.engine._renew_if_due = lambda: None  # type: ignore[method-assign]
    fleet.engine.available()
    assert offered == [({"a": drives, "b": {}, "c": {}}, frozenset("c"))]


# Many vehicles: book-keeping grows with their number, and not with its square


@pytest.fixture
def judgements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everyone whose silence is looked at, each time."""
    judged: list[str] = []
    silent_s = TaskDispatcher.silent_s

    def counting(self: TaskDispatcher, site: str) -> float:
        judged.append(site)
        return silent_s(self, site)

    monkeypatch.setattr(TaskDispatcher, "silent_s", counting)
    return judged


def test_who_enrols_is_not_judged_with_each_answer(
    world: MakeWorld, judgements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda handle: None)
    fleet, sites = world(min_vehicles=200), [f"car-{k}" for k in range(200)]
    fleet.segment(sites=sites)
    assert len(fleet.engine.available()) == 200
    assert len(judgements) < 30 * len(sites)  # once in a while, however many have answered


def test_of_many_who_are_waited_for_each_is_judged_less_often(
    world: MakeWorld, judgements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_JUDGED_A_SECOND", 10)
    fleet, sites = world(fetch_s=1000.0), [f"car-{k}" for k in range(20)]
    fleet.segment(but(**dict.fromkeys(sites, fetches)), sites)
    fleet.engine.available()
    judgements.clear()
    told = fleet.train(sites, deadline_s=1.0)  # two seconds' worth of judging
    assert set(told.values()) == {("late", "deadline")}
    assert len(judgements) <= 2 * len(sites)


def test_a_turn_at_a_site_begins_with_the_answer_before_it_whoever_else_is_asked(
    world: MakeWorld,
) -> None:
    def slow(job: Job, site: str, header: Header, payload: bytes) -> None:
        fleet.clock.jump(15)
        time.sleep(0.3)  # long enough for the others to be judged
        honest(job, site, header, payload)

    assigned = {"depot": ("x", "y", "z"), "b": ("b",)}
    fleet = world(assigned=assigned, silent_s=1000.0)
    fleet.segment(
        lambda job, site, header, payload: (
            hello(job, site, header, assigned[site])
            if header["what"] == "hello"
            else (slow if site == "depot" else honest)(job, site, header, payload)
        ),
        ("depot", "b"),
    )
    fleet.engine.available()
    assert set(fleet.train(("x", "y", "z", "b")).values()) == {"ok"}


def test_a_depot_s_vehicles_are_sent_one_broadcast_and_it_reaches_the_job_once(
    world: MakeWorld,
) -> None:
    assigned = {"depot": tuple(f"car-{k}" for k in range(80)), "b": ("b",)}
    fleet = world(assigned=assigned)
    job = fleet.segment(
        lambda job, site, header, payload: (
            hello(job, site, header, assigned[site])
            if header["what"] == "hello"
            else honest(job, site, header, payload)
        ),
        ("depot", "b"),
    )
    vehicles = fleet.engine.available()
    assert set(fleet.train(tuple(vehicles)).values()) == {"ok"}
    orders = [order for order in job.asked if order["header"]["what"] == "train"]
    assert len(orders) == 80
    (first, *others) = (order["bytes"] for order in orders)
    assert (first > 0, set(others)) == (True, {0})
    assert fleet.dispatcher.bytes_down == 81 * first  # it leaves the server for each all the same
