"""What a run's choices make of its rounds: the server's step, who is asked, facts and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.federation.scripted_fleet import (
    FOUR,
    NO_COUNTERS,
    TWO,
    Fleet,
    MemoryLog,
    Reply,
    Script,
    go,
    lost,
    plan,
    start,
    update,
)
from tests.records import SPACE

from fleetseg.config import ProxConfig, TrainingConfig
from fleetseg.errors import QuorumLost
from fleetseg.federation.checkpoint import ServerState, load_newest, save_checkpoint
from fleetseg.federation.claims import Claims
from fleetseg.federation.cohort import SAMPLERS, Sampler
from fleetseg.federation.known import Known, Memory, Outcome
from fleetseg.federation.messages import Broadcast, Failure
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher, run
from fleetseg.federation.tensors import ModelState
from fleetseg.federation.weights import WEIGHTS, Weighting


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


def test_who_claims_far_more_than_the_others_does_not_take_the_model_over() -> None:
    """Three at 0 with 10 images, and one at 8 that says 2 ** 24: it counts as 50 of 80."""
    fleet = Fleet({c: ([0.0, 0.0, 0.0], 10) for c in "abc"} | {"d": ([8.0, 8.0, 8.0], 1 << 24)})
    told: list[str] = []
    described = replace(plan(federation={"rounds": 1}), claims=Claims(5, tell=told.append))
    _, log = go(fleet, described)
    assert log.states[0].model.values_F.tolist() == [5, 5, 5]
    assert log.records[0].cut == {"d": 50}
    assert log.records[0].to_dict()["cut"] == {"d": 50}
    assert len(told) == 1


def test_who_tells_of_a_loss_far_above_the_others_does_not_take_the_model_over() -> None:
    """q-FedAvg of three at 0 with a loss of 1, and one at 8 that says 10^9: it counts as 5."""

    def told(client: str, broadcast: Broadcast) -> list[Reply]:
        delta, loss = ([8.0] * 3, 1e9) if client == "d" else ([0.0] * 3, 1.0)
        measures = {"received_loss": loss}
        return [update(client, broadcast.round, delta, 1, measures=measures)]

    flat = {"q": 1.0, "lipschitz": 1e-12}
    asked = plan(federation={"rounds": 1, "aggregator": "q-fedavg", "qffl": flat})
    for claims, expected in ((Claims(5), 5.0), (Claims(), 8.0)):
        _, log = go(Fleet(FOUR, dict.fromkeys("abcd", told)), replace(asked, claims=claims))
        assert log.states[0].model.values_F.tolist() == pytest.approx([expected] * 3, rel=1e-6)


def test_who_sends_a_change_many_times_as_long_as_the_others_is_refused() -> None:
    """The first round has nothing to compare with; from the second on, all is as without it."""

    def far(client: str, broadcast: Broadcast) -> list[Reply]:
        return [update(client, broadcast.round, [1.0, 2.0, 3.0 * 50 ** (broadcast.round > 1)], 1)]

    described = replace(plan(federation={"rounds": 4}), max_times_norm=10.0)
    _, log = go(Fleet(FOUR, {"d": far}), described)
    assert [[(f.client_id, f.reason) for f in r.failures] for r in log.records] == [
        [],
        *[[("d", "norm")]] * 3,
    ]
    assert all(set(r.step_norms) == set(FOUR) for r in log.records)
    assert RoundRecord.from_dict(log.records[1].to_dict(), SPACE).step_norms
    _, unbounded = go(Fleet(FOUR, {"d": far}), plan(federation={"rounds": 4}))
    assert not any(record.failures or record.step_norms for record in unbounded.records)


def test_who_says_that_it_took_fewer_steps_is_not_believed_to_step_so_far() -> None:
    """By 20 steps of 160 images, d sends what all do; by the one that it tells of, far more."""

    def took(steps: int) -> Script:
        return lambda client, broadcast: [
            update(client, broadcast.round, [1.0, 2.0, 3.0], 160, num_steps=steps)
        ]

    fleet = Fleet(
        {c: ([1.0, 2.0, 3.0], 160) for c in "abcd"},
        {**dict.fromkeys("abc", took(20)), "d": took(1)},
    )
    described = plan(federation={"rounds": 2, "aggregator": "normalised"})
    _, log = go(fleet, replace(described, max_times_norm=10.0))
    assert [[(f.client_id, f.reason) for f in r.failures] for r in log.records] == [
        [],
        [("d", "norm")],
    ]


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
