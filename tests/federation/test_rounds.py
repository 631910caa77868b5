"""The loop with three numbers for a model and a plain Python class for a fleet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.records import scored
from torch import nn

from fleetseg.config import (
    EvaluationConfig,
    Experiment,
    FederationConfig,
    ProxConfig,
    StopConfig,
    TrainingConfig,
)
from fleetseg.errors import QuorumLost
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.checkpoint import ServerState, load_newest, save_checkpoint
from fleetseg.federation.cohort import SAMPLERS, Sampler
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.known import Known, Memory, Outcome
from fleetseg.federation.messages import Broadcast, Enrolment, Failure, Update
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Plan, Watcher, run, scored_before
from fleetseg.federation.sharing import Exchange
from fleetseg.federation.tensors import ModelState, layout_of
from fleetseg.federation.weights import WEIGHTS, Weighting

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


def test_rounds_begin_no_closer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, slept = [100.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now_s[0] += seconds

    monkeypatch.setattr("fleetseg.federation.rounds.time.sleep", sleep)
    monkeypatch.setattr("fleetseg.federation.rounds.time.monotonic", lambda: now_s[0])

    def slow(client: str, broadcast: Broadcast) -> list[Reply]:
        now_s[0] += 3.0 if broadcast.round == 2 else 0.5
        return [Failure(client, "lost", "crashed")]

    settings = {"rounds": 4, "max_failed_rounds": 9}
    fleet = Fleet({"a": ([1.0, 1.0, 1.0], 1)}, {"a": slow})
    go(fleet, replace(plan(federation=settings), round_every_s=2.0))
    assert slept == [0.0, 1.5, 0.0, 1.5]


def lost(client: str, broadcast: Broadcast) -> list[Reply]:
    return [Failure(client, "lost", "crashed")]


def late(client: str, broadcast: Broadcast) -> list[Reply]:
    return [Failure(client, "late", "deadline")]


def silent(client: str, broadcast: Broadcast) -> list[Reply]:
    return []


TWO = {"a": ([1.0, 2.0, 3.0], 1), "b": ([5.0, 6.0, 7.0], 3)}
FOUR = {c: ([1.0, 2.0, 3.0], 1) for c in "abcd"}


def test_fedavg_by_hand() -> None:
    fleet = Fleet(TWO)
    reason, log = go(fleet, plan(federation={"rounds": 2, "deadline_s": 7.5}))
    assert reason == "rounds"
    assert [s.model.values_F.tolist() for s in log.states] == [[4, 5, 6], [8, 10, 12]]
    # Each round starts from what the last one made.
    assert fleet.seen == [(1, ("b", "a"), [0, 0, 0], 7.5), (2, ("b", "a"), [4, 5, 6], 7.5)]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("images", [4, 5, 6]), ("pixels", [4, 5, 6]), ("uniform", [3, 4, 5])],
)
def test_weights(weights: str, expected: list[float]) -> None:
    _, log = go(Fleet(TWO), plan(federation={"rounds": 1, "weights": weights}))
    assert log.states[0].model.values_F.tolist() == expected


def test_server_learning_rate_and_momentum_by_hand() -> None:
    settings = {"rounds": 3, "server_lr": 0.5, "server_momentum": 0.5}
    _, log = go(Fleet({"a": ([2.0, 4.0, 8.0], 1)}), plan(federation=settings), start(momentum=True))
    # velocity 2, 3, 3.5; model 1, 2.5, 4.25
    assert [s.model.values_F[0].item() for s in log.states] == [1, 2.5, 4.25]
    assert log.states[-1].slots["momentum"].tolist() == [3.5, 7, 14]


@pytest.mark.parametrize("publishing", ["last", "ema"])
def test_what_is_sent_may_be_shifted_from_what_is_scored(publishing: str) -> None:
    """Three of four answer (1, 2, 3): h = 3/4 of that, added to what is sent alone."""
    scores: list[list[float]] = []

    def score(model: ModelState, round_: int, records: Sequence[RoundRecord]) -> str:
        scores.append(model.values_F.tolist())
        return "looked at"

    federation = {
        "rounds": 1, "weights": "uniform", "server_optimiser": "drift", "publishing": publishing,
    }  # fmt: skip
    described = plan(score, federation=federation, training=TrainingConfig(objective="dyn"))
    first = ServerState(0, ModelState(torch.zeros(3), NO_COUNTERS), {"drift": torch.zeros(3)})
    _, log = go(Fleet(FOUR, {"d": lost}), described, first)
    assert log.states[0].model.values_F.tolist() == [1.75, 3.5, 5.25]
    assert log.states[0].slots["drift"].tolist() == [0.75, 1.5, 2.25]
    assert scores == [[1, 2, 3]]
    assert described.published(log.states[0]).values_F.tolist() == [1, 2, 3]


@pytest.mark.parametrize(("objective", "two_steps"), [("plain", 1.5), ("prox", 1.4)])
def test_an_aggregator_knows_how_far_steps_carry(objective: str, two_steps: float) -> None:
    """Two steps and one, on images for two: each counts for what it is; three are refused.

    The one round's cosine is 1 in a first step and 1/2 in a second. FedProx's pull leaves, of a
    first step of 0.05, 1 - 4 * 0.025 after the second.
    """
    fleet = Fleet(
        {"a": ([2.0, 0.0, 0.0], 4), "b": ([0.0, 1.0, 0.0], 4), "c": ([9.0, 9.0, 9.0], 4)},
        {
            "a": lambda c, ask: [update(c, ask.round, [2, 0, 0], 4, num_steps=2)],
            "b": lambda c, ask: [update(c, ask.round, [0, 1, 0], 4, num_steps=1)],
            "c": lambda c, ask: [update(c, ask.round, [9, 9, 9], 4, num_steps=3)],
        },
    )
    training = TrainingConfig(
        batch_size=2, momentum=0.0, schedule="cosine", lr=0.05,
        objective=objective, prox=ProxConfig(mu=4.0),
    )  # fmt: skip
    described = plan(federation={"rounds": 1, "aggregator": "normalised"}, training=training)
    _, log = go(fleet, described)
    whole = (two_steps + 1) / 2
    expected = [whole * 2 / two_steps / 2, whole * 1 / 2, 0]
    assert log.states[0].model.values_F.tolist() == pytest.approx(expected)
    assert [(f.client_id, f.kind, f.reason) for f in log.records[0].failures] == [
        ("c", "refused", "count")
    ]


def test_the_record_of_a_round() -> None:
    fleet = Fleet({**FOUR, "e": ([1, 1, 1], 2)}, {"b": late, "c": lost, "d": silent})
    _, log = go(fleet, plan(federation={"rounds": 1, "quorum": 0.4}))
    (record,) = log.records
    assert record.round == 1
    assert record.cohort == ("a", "b", "c", "d", "e")
    assert record.accepted == ("a", "e")
    assert [(f.client_id, f.kind, f.reason) for f in record.failures] == [
        ("b", "late", "deadline"),
        ("c", "lost", "crashed"),
        ("d", "lost", "no-answer"),
    ]
    assert record.quorum is True
    assert record.loss == 0.5
    assert (record.steps, record.critical_path_steps, record.images_seen) == (4, 2, 3)
    assert (record.bytes_down, record.bytes_up) == (5 * DOWN, 2 * UP)
    assert not record.was_scored


def test_refused_updates_are_counted_with_their_bytes() -> None:
    def bad(client: str, broadcast: Broadcast) -> list[Reply]:
        return [update(client, broadcast.round, [float("nan"), 0, 0], 1)]

    _, log = go(Fleet(FOUR, {"c": bad}), plan(federation={"rounds": 1}))
    (record,) = log.records
    assert record.accepted == ("a", "b", "d")
    assert record.bytes_up == 4 * UP
    (failure,) = record.failures
    assert (failure.client_id, failure.kind, failure.reason) == ("c", "refused", "non-finite")
    assert "weight" in failure.detail
    assert log.states[0].model.values_F.tolist() == [1, 2, 3]


def test_duplicate_stale_and_unasked_replies_are_refused() -> None:
    def noisy(client: str, broadcast: Broadcast) -> list[Reply]:
        r = broadcast.round
        one = update(client, r, [1, 2, 3], 1)
        return [one, one, update("zoe", r, [9, 9, 9], 1), update("c", r, [9, 9, 9], 1, round=r - 1)]

    _, log = go(Fleet(FOUR, {"a": noisy}), plan(federation={"rounds": 1}))
    (record,) = log.records
    assert record.accepted == ("a", "b", "d")
    assert [(f.client_id, f.reason) for f in record.failures] == [
        ("a", "unasked"),
        ("c", "stale"),
        ("c", "unasked"),
        ("zoe", "unasked"),
    ]
    assert log.states[0].model.values_F.tolist() == [1, 2, 3]


def test_a_missed_quorum_leaves_model_and_momentum_untouched_and_counts() -> None:
    calls = {"b": lost, "c": late, "d": silent}
    settings = {"rounds": 2, "quorum": 0.5, "server_momentum": 0.9}
    reason, log = go(Fleet(FOUR, calls), plan(federation=settings), start(momentum=True))
    assert reason == "no-update"
    assert [s.failed_rounds for s in log.states] == [1, 2]
    assert [s.round for s in log.states] == [1, 2]
    assert [s.model.values_F.tolist() for s in log.states] == [[0, 0, 0]] * 2
    assert log.states[-1].slots["momentum"].tolist() == [0, 0, 0]
    assert [r.quorum for r in log.records] == [False, False]
    assert log.records[0].accepted == ("a",)


def test_the_count_of_failed_rounds_starts_again_after_a_good_one() -> None:
    def every_third(client: str, broadcast: Broadcast) -> list[Reply]:
        if broadcast.round % 3:
            return []
        return [update(client, broadcast.round, [1, 2, 3], 1)]

    fleet = Fleet({"a": ([1, 2, 3], 1)}, {"a": every_third})
    reason, log = go(fleet, plan(federation={"rounds": 7, "max_failed_rounds": 3}))
    assert reason == "rounds"
    assert [s.failed_rounds for s in log.states] == [1, 2, 0, 1, 2, 0, 1]
    assert log.states[-1].model.values_F.tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("quorum", "ok", "asked"),
    [(0.5, 2, 4), (0.5, 1, 2), (1.0, 4, 4), (0.55, 11, 20), (0.14, 7, 50), (0.0, 1, 4)],
)
def test_exactly_the_quorum_is_enough(quorum: float, ok: int, asked: int) -> None:
    names = [f"{i:02d}" for i in range(asked)]
    fleet = Fleet({n: ([1, 2, 3], 1) for n in names}, {n: silent for n in names[ok:]})
    _, log = go(fleet, plan(federation={"rounds": 1, "quorum": quorum}))
    assert log.records[0].quorum is True
    one_less = Fleet(fleet.deltas, {n: silent for n in names[ok - 1 :]})
    _, log = go(one_less, plan(federation={"rounds": 1, "quorum": quorum}))
    assert log.records[0].quorum is False


def test_quorum_lost_names_who_was_missing() -> None:
    fleet = Fleet(FOUR, {"a": lost, "b": late, "c": silent})
    log = MemoryLog()
    with pytest.raises(QuorumLost) as caught:
        run(plan(federation={"rounds": 9, "max_failed_rounds": 2}), fleet, start(), log, Watcher())
    text = str(caught.value)
    assert "2 rounds in a row without a quorum" in text
    for missing in ("a (lost: crashed)", "b (late: deadline)", "c (lost: no-answer)"):
        assert missing in text
    assert "50%" in text
    assert "--resume" in text
    assert len(log.states) == 2
    assert log.states[-1].model.values_F.tolist() == [0, 0, 0]


def test_a_run_that_lost_its_quorum_can_be_resumed_with_a_mended_fleet() -> None:
    reason, log = go(
        Fleet(FOUR), plan(federation={"rounds": 2, "max_failed_rounds": 3}), start(failed_rounds=3)
    )
    assert reason == "rounds"
    assert log.states[0].failed_rounds == 0
    # and with a fleet that is not mended, it ends after as many tries again.
    log = MemoryLog()
    dead = Fleet(FOUR, dict.fromkeys("abcd", silent))
    with pytest.raises(QuorumLost):
        run(
            plan(federation={"rounds": 9, "max_failed_rounds": 3}),
            dead,
            start(failed_rounds=3),
            log,
            Watcher(),
        )
    assert len(log.records) == 3


def test_no_clients_at_all() -> None:
    for fleet in (Fleet({}), Fleet(TWO, abstains=frozenset("ab"))):
        with pytest.raises(QuorumLost, match="no clients; got no client that can take part"):
            go(fleet, plan())


def test_clients_that_abstain_are_never_asked() -> None:
    fleet = Fleet(TWO, abstains=frozenset("b"))
    _, log = go(fleet, plan(federation={"rounds": 1}))
    assert log.records[0].cohort == ("a",)
    assert log.states[0].model.values_F.tolist() == [1, 2, 3]


def test_cohorts_differ_by_round_and_not_by_order_of_the_fleet() -> None:
    names = [f"car-{i}" for i in range(12)]
    deltas = {n: ([1.0, 2.0, 3.0], i + 1) for i, n in enumerate(names)}
    settings = {"rounds": 6, "cohort": 0.25}
    _, log = go(Fleet(deltas), plan(federation=settings))
    backwards = {n: deltas[n] for n in reversed(names)}
    _, again = go(Fleet(backwards), plan(federation=settings))
    cohorts = [r.cohort for r in log.records]
    assert all(len(c) == 3 for c in cohorts)
    assert len(set(cohorts)) > 3
    assert [r.cohort for r in again.records] == cohorts


@pytest.mark.parametrize(
    ("every", "rounds"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (0, [5]), (9, [5])]
)
def test_evaluation_cadence(every: int, rounds: list[int]) -> None:
    models: list[float] = []

    def score(state: ModelState, round_: int, records: Sequence[RoundRecord]) -> Scored | str:
        models.append(state.values_F[0].item())
        return scored(0.25)

    _, log = go(
        Fleet({"a": ([1, 2, 3], 1)}),
        plan(score, federation={"rounds": 5}, evaluation=EvaluationConfig(every=every)),
    )
    assert [r.round for r in log.records if r.was_scored] == rounds
    assert models == rounds  # the model after the round, which is the round's number here
    assert log.records[-1].miou == 0.25


def test_stops_at_the_target() -> None:
    def score(state: ModelState, round_: int, records: Sequence[RoundRecord]) -> Scored | str:
        return scored(state.values_F[0].item() / 10)

    reason, log = go(
        Fleet({"a": ([1, 2, 3], 1)}),
        plan(score, federation={"rounds": 9}, stop=StopConfig(target_miou=0.35)),
    )
    assert reason == "target"
    assert len(log.records) == 4


def test_stops_on_a_plateau() -> None:
    def score(state: ModelState, round_: int, records: Sequence[RoundRecord]) -> Scored | str:
        return scored(min(state.values_F[0].item(), 3) / 10)

    reason, log = go(
        Fleet({"a": ([1, 2, 3], 1)}),
        plan(score, federation={"rounds": 20}, stop=StopConfig(patience=4)),
    )
    assert reason == "plateau"
    assert len(log.records) == 3 + 4


def test_a_round_is_committed_before_it_is_scored() -> None:
    """What fails while scoring must not cost the training; a resumed run scores it first."""
    fleet, settings = Fleet({"a": ([1, 2, 3], 1)}), {"federation": {"rounds": 3}}
    log = MemoryLog()

    def broken(state: ModelState, round_: int, records: Sequence[RoundRecord]) -> Scored | str:
        raise OSError("a test frame cannot be read")

    with pytest.raises(OSError, match="test frame"):
        run(plan(broken, **settings), fleet, start(), log, Watcher())
    assert [s.round for s in log.states] == [1]
    assert not log.records[0].was_scored

    run(
        plan(lambda s, round_, records: scored(0.5), **settings),
        fleet,
        log.states[0],
        log,
        Watcher(),
    )
    assert [r.round for r in log.records if r.miou == 0.5] == [1, 2, 3]


def test_nobody_gives_scores_and_the_run_goes_on() -> None:
    def score(state: ModelState, round_: int, records: Sequence[RoundRecord]) -> Scored | str:
        return "no scores from a: no-answer"

    _, log = go(Fleet({"a": ([1, 2, 3], 1)}), plan(score, federation={"rounds": 2}))
    assert [r.unscored for r in log.records] == ["no scores from a: no-answer"] * 2
    assert not any(r.scored for r in log.records)


def test_later_scores_know_who_was_scored_before() -> None:
    before: list[Collection[str]] = []

    def score(state: ModelState, round_: int, records: Sequence[RoundRecord]) -> Scored | str:
        before.append(sorted(scored_before(records)))
        return scored(0.5, on="ab"[: len(before)])

    go(Fleet({"a": ([1, 2, 3], 1)}), plan(score, federation={"rounds": 3}))
    assert before == [[], ["a"], ["a", "b"]]


def test_stops_at_the_megabytes() -> None:
    # A round takes 2 x (1000 + 600) bytes.
    reason, log = go(Fleet(TWO), plan(federation={"rounds": 20}, stop=StopConfig(megabytes=0.0096)))
    assert reason == "megabytes"
    assert len(log.records) == 3


def test_stops_at_the_minutes_of_the_engine_s_clock() -> None:
    fleet = Fleet(TWO, round_s=12.5)
    reason, log = go(fleet, plan(federation={"rounds": 20}, stop=StopConfig(minutes=1)))
    assert reason == "time"
    assert [r.seconds for r in log.records] == [12.5] * 5


def test_a_finished_run_does_nothing_more() -> None:
    state = ServerState(3, start().model)
    fleet = Fleet(TWO)
    reason, log = go(fleet, plan(federation={"rounds": 3}), state)
    assert (reason, log.records, fleet.seen) == ("rounds", [], [])


def test_the_watcher_sees_each_step() -> None:
    seen: list[Any] = []
    watcher = Watcher(
        round_opened=lambda r, cohort: seen.append((r, tuple(cohort))),
        replied=lambda reply, failure: seen.append(
            (reply.client_id, failure.reason if failure else "ok")
        ),
        round_closed=lambda record: seen.append(record.round),
    )
    fleet = Fleet(TWO, {"b": late})
    run(plan(federation={"rounds": 1}), fleet, start(), MemoryLog(), watcher)
    assert seen == [(1, ("b", "a")), ("b", "deadline"), ("a", "ok"), 1]


def test_a_bad_client_in_each_of_50_rounds_does_not_end_the_run() -> None:
    def bad(client: str, broadcast: Broadcast) -> list[Reply]:
        value = [float("inf"), 1e38, float("nan")][broadcast.round % 3]
        return [update(client, broadcast.round, [value, 0, 0], 1)]

    fleet, without = Fleet(FOUR, {"d": bad}), Fleet(FOUR, {"d": silent})
    reason, log = go(fleet, plan(federation={"rounds": 50}))
    assert reason == "rounds"
    assert [len(r.failures) for r in log.records] == [1] * 50
    _, reference = go(without, plan(federation={"rounds": 50}))
    assert log.states[-1].model.digest() == reference.states[-1].model.digest()


# More asked than wanted


@dataclass
class Closing(Fleet):
    """Notes who had answered by the time that a round was closed."""

    answered: list[list[str]] = field(default_factory=list)

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        self.answered.append([])
        for reply in super().ask(task, asks, deadline_s):
            self.answered[-1].append(reply.client_id)
            yield reply


SIX = {c: ([1.0, 2.0, 3.0], 1) for c in "abcdef"}


def test_a_round_is_closed_as_soon_as_enough_have_answered() -> None:
    fleet = Closing(SIX)
    settings = {"rounds": 2, "cohort": 3, "over_selection": 2.0}
    _, log = go(fleet, plan(federation=settings))
    assert fleet.answered == [["a", "b", "c"]] * 2
    for record in log.records:
        assert record.cohort == ("a", "b", "c", "d", "e", "f")
        assert record.accepted == ("a", "b", "c")
        assert [(f.client_id, f.kind, f.reason) for f in record.failures] == [
            (c, "late", "surplus") for c in "def"
        ]
        assert record.quorum is True
    assert log.states[-1].model.values_F.tolist() == [2, 4, 6]


def test_the_surplus_takes_the_place_of_those_that_fail() -> None:
    fleet = Closing(SIX, {"a": lost, "b": late, "d": silent})
    _, log = go(fleet, plan(federation={"rounds": 1, "cohort": 3, "over_selection": 2.0}))
    (record,) = log.records
    assert record.accepted == ("c", "e", "f")
    assert [(f.client_id, f.reason) for f in record.failures] == [
        ("a", "crashed"),
        ("b", "deadline"),
        ("d", "surplus"),
    ]


def test_the_quorum_is_of_those_wanted_and_not_of_those_asked() -> None:
    def outcome(ok: str) -> tuple[bool, list[str]]:
        fleet = Fleet(SIX, {c: silent for c in SIX if c not in ok})
        settings = {"rounds": 1, "cohort": 4, "over_selection": 1.5, "quorum": 0.5}
        _, log = go(fleet, plan(federation=settings))
        (record,) = log.records
        return record.quorum, [f.reason for f in record.failures]

    assert outcome("ab") == (True, ["no-answer"] * 4)
    assert outcome("a") == (False, ["no-answer"] * 5)
    assert outcome("abcd") == (True, ["surplus"] * 2)


def test_a_small_fleet_has_no_surplus_and_hears_all() -> None:
    fleet = Closing(FOUR, {"d": late})
    _, log = go(fleet, plan(federation={"rounds": 1, "over_selection": 2.0}))
    assert fleet.answered == [["a", "b", "c", "d"]]
    assert [f.reason for f in log.records[0].failures] == ["deadline"]


def test_over_selection_of_one_is_none() -> None:
    _, plain = go(Fleet(SIX), plan(federation={"rounds": 3, "cohort": 3}))
    _, log = go(Fleet(SIX), plan(federation={"rounds": 3, "cohort": 3, "over_selection": 1.0}))
    assert [r.cohort for r in log.records] == [r.cohort for r in plain.records]
    assert all(r.failures == () for r in log.records)


# What a client is told of its own updates


def test_a_client_is_told_which_of_its_updates_was_the_last_to_count() -> None:
    def odd(client: str, broadcast: Broadcast) -> list[Reply]:
        return [] if broadcast.round % 2 else [update(client, broadcast.round, [1, 2, 3], 1)]

    fleet = Fleet(TWO, {"a": odd})
    go(fleet, plan(federation={"rounds": 4}))
    assert [asks["a"].counted for asks in fleet.asks] == [0, 0, 2, 2]
    assert [asks["b"].counted for asks in fleet.asks] == [0, 1, 2, 3]
    # Who is told the same is sent the same message.
    assert fleet.asks[0]["a"] is fleet.asks[0]["b"]


def test_nobody_s_update_counts_in_a_round_without_a_quorum() -> None:
    fleet = Fleet(FOUR, {"b": lost, "c": lost, "d": lost})
    go(fleet, plan(federation={"rounds": 2}))
    assert [asks["a"].counted for asks in fleet.asks] == [0, 0]


# What is remembered of clients between rounds


def test_memory_goes_by_name_and_stays_with_the_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def remember(memory: Memory, outcome: Outcome) -> Memory:
        losses = {a.client_id: a.loss + outcome.round for a in outcome.accepted}
        return {"loss": {**memory.get("loss", {}), **losses}}

    seen: list[Memory] = []

    def draw(known: Known, count: int, generator: object) -> list[str]:
        seen.append(known.memory)
        return [list(known.enrolled)[known.round % len(known.enrolled)]]

    def weigh(known: Known) -> dict[str, int]:
        seen.append(known.memory)
        return dict.fromkeys(known.enrolled, 1)

    monkeypatch.setitem(SAMPLERS, "turn", Sampler(draw, remember=remember))
    monkeypatch.setitem(WEIGHTS, "told", Weighting(weigh, remember=remember))
    settings = {"rounds": 2, "cohort": 1, "sampler": "turn", "weights": "told"}
    _, log = go(Fleet(TWO, {"a": lost}), plan(federation=settings))
    assert [r.cohort for r in log.records] == [("b",), ("a",)]
    # Of the lost one, nothing is known; in a round without a quorum, weights learn nothing.
    assert log.states[-1].memory == {
        "sampler": {"loss": {"b": 1.5}},
        "weights": {"loss": {"b": 1.5}},
    }
    assert seen == [{}, {}, {"loss": {"b": 1.5}}, {"loss": {"b": 1.5}}]
    whole, resumed = go(Fleet(TWO), plan(federation=settings)), MemoryLog()
    run(plan(federation=settings), Fleet(TWO), whole[1].states[0], resumed, Watcher())
    assert resumed.states[-1].memory == whole[1].states[-1].memory


@pytest.mark.parametrize("weights", ["images", "feddg-ga"])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_resumed_run_asks_as_the_whole_one(sampler: str, weights: str, tmp_path: Path) -> None:
    def answer(client: str, broadcast: Broadcast) -> list[Reply]:
        if (broadcast.round + ord(client)) % 4 == 0:
            return [Failure(client, "lost", "crashed")]
        loss = (ord(client) * 7 + broadcast.round * 3) % 11 / 4
        measures = {"received_loss": loss, "trained_loss": loss / 2}
        told = measures if weights == "feddg-ga" else {}
        honest = update(client, broadcast.round, [loss, 1, -loss], 3, loss=loss, measures=told)
        return [honest]

    deltas = {c: ([0.0, 0.0, 0.0], 3) for c in "abcdefgh"}
    fleet = Fleet(deltas, dict.fromkeys(deltas, answer))
    how = plan(federation={
        "rounds": 9, "cohort": 3, "sampler": sampler, "weights": weights, "quorum": 0.0,
        "max_failed_rounds": 9,
    })  # fmt: skip
    ids = {"experiment": "e", "layout": "l"}
    _, whole = go(fleet, how)
    for at in (0, 3, 6):
        save_checkpoint(tmp_path, whole.states[at], {}, **ids)
        state, _, _ = load_newest(tmp_path, **ids)
        log = MemoryLog()
        run(how, Fleet(deltas, dict.fromkeys(deltas, answer)), state, log, Watcher())
        assert [r.cohort for r in log.records] == [r.cohort for r in whole.records[at + 1 :]]
        assert log.states[-1].model.digest() == whole.states[-1].model.digest()
        assert log.states[-1].memory == whole.states[-1].memory


def test_what_remembers_nothing_costs_nothing() -> None:
    _, log = go(Fleet(TWO), plan(federation={"rounds": 1}))
    assert log.states[0].memory == {}


def test_a_round_that_asks_nobody_is_committed_without_a_step_and_is_no_failed_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = {1: ["a"], 2: [], 3: ["b"], 4: []}
    draw = Sampler(lambda known, count, generator: turns[known.round], is_sized=False)
    monkeypatch.setitem(SAMPLERS, "none", draw)
    settings = {"rounds": 4, "sampler": "none", "server_momentum": 0.5, "max_failed_rounds": 1}
    fleet = Fleet(TWO)
    reason, log = go(fleet, plan(federation=settings), start(momentum=True))
    assert reason == "rounds"
    assert len(fleet.asks) == 2  # an engine is not bothered
    assert [s.model.values_F.tolist() for s in log.states] == [
        [1, 2, 3], [1, 2, 3], [6.5, 9, 11.5], [6.5, 9, 11.5],
    ]  # fmt: skip
    assert torch.equal(log.states[1].slots["momentum"], log.states[0].slots["momentum"])
    assert [(r.quorum, r.loss, r.cohort) for r in log.records[1::2]] == [(True, None, ())] * 2
    assert [s.failed_rounds for s in log.states] == [0] * 4


def test_empty_rounds_do_not_end_or_forget_a_row_of_failed_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = Sampler(lambda known, count, generator: ["a"] if known.round % 2 else [], is_sized=False)
    monkeypatch.setitem(SAMPLERS, "none", draw)
    fleet, log = Fleet(TWO, {"a": lost}), MemoryLog()
    with pytest.raises(QuorumLost):
        run(
            plan(federation={"rounds": 9, "sampler": "none", "max_failed_rounds": 2}),
            fleet,
            start(),
            log,
            Watcher(),
        )
    assert [s.failed_rounds for s in log.states] == [1, 1, 2]
    nobody = Sampler(lambda known, count, generator: [], is_sized=False)
    monkeypatch.setitem(SAMPLERS, "none", nobody)
    reason, _ = go(Fleet(TWO), plan(federation={"rounds": 2, "sampler": "none"}))
    assert reason == "no-update"


# What the server makes of the fleet before the first round


def test_facts_are_made_once_and_stay_whoever_is_there() -> None:
    facts = TrainingConfig(class_weights="fleet")
    settings = {"federation": {"rounds": 2}, "training": facts}
    fleet = Fleet(TWO)
    _, log = go(fleet, plan(**settings))
    assert list(log.states[0].facts) == ["class_weights"]
    smaller = Fleet({"a": TWO["a"]})
    _, later = go(smaller, plan(**settings), log.states[0])
    assert smaller.asks[0]["a"].facts is log.states[0].facts
    assert later.states[-1].facts is log.states[0].facts


def test_facts_that_nothing_takes_are_not_made() -> None:
    fleet = Fleet(TWO)
    _, log = go(fleet, plan(federation={"rounds": 1}))
    assert log.states[0].facts == fleet.asks[0]["a"].facts == {}


def test_bytes_of_scoring_on_clients_are_of_the_round() -> None:
    """They fell between two rounds' readings of the meter, and counted nowhere."""
    fleet = Fleet(SIX)

    def score(model: ModelState, round_: int, records: Any) -> str:
        fleet._count(len(SIX) * DOWN, 0)
        return "no frames"

    _, plain = go(Fleet(SIX), plan(federation={"rounds": 2}))
    _, scored = go(fleet, plan(score, federation={"rounds": 2}))
    for one, other in zip(plain.records, scored.records, strict=True):
        assert other.bytes_down == 2 * one.bytes_down
