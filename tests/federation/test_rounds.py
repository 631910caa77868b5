"""The loop with three numbers for a model and a plain Python class for a fleet."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.federation.scripted_fleet import (
    DOWN,
    FOUR,
    TWO,
    UP,
    Fleet,
    MemoryLog,
    Reply,
    go,
    late,
    lost,
    plan,
    silent,
    start,
    update,
)
from tests.records import scored

from fleetseg.config import EvaluationConfig, StopConfig
from fleetseg.errors import QuorumLost
from fleetseg.evaluation.scored import Scored
from fleetseg.federation.checkpoint import ServerState
from fleetseg.federation.engine import Received
from fleetseg.federation.messages import Broadcast, Failure
from fleetseg.federation.records import RoundRecord
from fleetseg.federation.rounds import Watcher, run, scored_before
from fleetseg.federation.tensors import ModelState


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
    assert slept == [1.5, 1.5]
    slept.clear()
    fleet = Fleet({"a": ([1.0, 1.0, 1.0], 1)}, {"a": slow})
    go(fleet, replace(plan(federation={**settings, "rounds": 2}), round_every_s=12.0))
    assert slept == [5.0, 5.0, 1.5]  # in naps: a watchdog takes what sleeps for an hour for hung


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
