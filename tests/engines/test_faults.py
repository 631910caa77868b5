"""Simulated drop-out and stragglers: repeatable, counted, and on a virtual clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from fleetseg.config import Experiment
from fleetseg.engines.faults import SimulatedFaults
from fleetseg.experiment_file import make_experiment
from fleetseg.federation.engine import Meter, Received
from fleetseg.federation.messages import Broadcast, Changes, Enrolment, Evaluation, Update
from fleetseg.federation.tensors import ModelState

MODEL = ModelState(torch.zeros(1), torch.zeros(0, dtype=torch.int64))
SIZES = (3_000_000, 1_000_000)  # bytes of a broadcast, of an update
FLEET = [f"car-{i:03d}" for i in range(200)]


class Willing:
    """An engine whose clients always answer, and that remembers who was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def available(self) -> Mapping[str, Enrolment]:
        return {name: Enrolment(name, 10, 100, (100,)) for name in FLEET}

    def ask(
        self, task: str, asks: Mapping[str, Broadcast], deadline_s: float = 0.0
    ) -> Iterator[Received]:
        self.asked += asks
        for name, broadcast in asks.items():
            if task == "train":
                yield Update(broadcast.round, name, MODEL, 10, 100, 1, 10, 0.5)
            else:
                yield Evaluation(broadcast.round, name, {})

    def meter(self) -> Meter:
        return Meter(7, 5, 1e9)


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
    replies = engine.ask("train", dict.fromkeys(FLEET, broadcast(round_)), deadline_s)
    return {r.client_id: getattr(r, "kind", "ok") for r in replies}


def test_drop_out_has_its_rate_and_differs_by_round() -> None:
    engine = SimulatedFaults(Willing(), experiment(dropout=0.3), SIZES)
    first, second = train(engine, 1), train(engine, 2)
    assert len(first) == len(second) == len(FLEET)
    assert 0.2 < sum(kind == "lost" for kind in first.values()) / len(FLEET) < 0.4
    assert first != second
    assert first == train(engine, 1)


def test_stragglers_are_late_in_every_round_and_do_not_train() -> None:
    behind = Willing()
    engine = SimulatedFaults(behind, experiment(stragglers=0.2, slowdown=10), SIZES)
    first = train(engine, 1, deadline_s=20.0)
    late = {name for name, kind in first.items() if kind == "late"}
    assert 0.1 < len(late) / len(FLEET) < 0.3
    assert late.isdisjoint(behind.asked)
    second = train(engine, 2, deadline_s=20.0)
    assert late == {name for name, kind in second.items() if kind == "late"}


def test_who_is_lost_was_sent_a_model_and_who_is_late_sends_an_update_too() -> None:
    engine = SimulatedFaults(Willing(), experiment(stragglers=0.2, dropout=0.1), SIZES)
    before = engine.meter()
    kinds = Counter(train(engine, 1, deadline_s=20.0).values())
    sent = engine.meter() - before
    assert kinds["lost"] > 0 < kinds["late"]
    assert sent.bytes_down == (kinds["lost"] + kinds["late"]) * SIZES[0]
    assert sent.bytes_up == kinds["late"] * SIZES[1]


def test_scoring_is_not_disturbed() -> None:
    engine = SimulatedFaults(Willing(), experiment(dropout=1.0), SIZES)
    scores = list(engine.ask("evaluate", dict.fromkeys(FLEET, broadcast(1)), 1.0))
    assert [type(reply) for reply in scores] == [Evaluation] * len(FLEET)
    assert engine.meter() == Meter(7, 5, 0.0)


def test_the_virtual_clock_waits_for_the_slowest_or_the_deadline() -> None:
    # 10 images at 1 s, and 4 MB over a link of 2 MB/s: 12 s for a normal vehicle.
    calm = SimulatedFaults(Willing(), experiment(), SIZES)
    train(calm, 1)
    assert calm.meter().seconds == 12.0
    slow = SimulatedFaults(Willing(), experiment(stragglers=1.0, slowdown=5), SIZES)
    train(slow, 1)
    assert slow.meter().seconds == 52.0
    train(slow, 2, deadline_s=20.0)
    assert slow.meter().seconds == 72.0


# Over-selection: who is first is the virtual clock's to say


def race(engine: SimulatedFaults, enough: int, **refused: str) -> list[str]:
    """Train until a round has enough updates; returns who answered, in order."""
    answered: list[str] = []
    replies = engine.ask("train", dict.fromkeys(FLEET, broadcast(1)))
    for reply in replies:
        answered.append(reply.client_id)
        if len(answered) == enough:
            break
    replies.close()  # type: ignore[attr-defined]
    return answered


def racing(**faults: float) -> Experiment:
    described = experiment(**faults)
    federation = described.federation.model_copy(update={"cohort": 100, "over_selection": 2.0})
    return described.model_copy(update={"federation": federation})


def test_only_the_fastest_train_whatever_the_machine_is_like() -> None:
    behind = Willing()
    engine = SimulatedFaults(behind, racing(stragglers=0.3, slowdown=5), SIZES)
    before = engine.meter()
    answered = race(engine, 100)
    slow = {c for c in FLEET if engine._duration_s(c, broadcast(1)) > 12.0}
    assert 20 < len(slow) < 100
    assert slow.isdisjoint(answered)
    assert sorted(behind.asked) == sorted(answered)  # nobody trains in vain
    sent = engine.meter() - before
    assert sent.seconds == 12.0  # not the 52 s of those that nobody waits for
    assert sent.bytes_down == 100 * SIZES[0]  # of those that did not train; the others' are behind


def test_those_that_fail_are_made_up_for_in_order() -> None:
    behind = Willing()
    engine = SimulatedFaults(behind, racing(stragglers=0.3, slowdown=5), SIZES)
    assert len(race(engine, 180)) == 180
    slow = [c for c in FLEET if engine._duration_s(c, broadcast(1)) > 12.0]
    assert behind.asked[-len(slow) + 20 :] == slow[: len(slow) - 20]
    assert engine.meter().seconds == 52.0


def test_where_enough_came_in_time_nobody_waits_for_the_deadline() -> None:
    """Of 200 that are asked, 100 are enough, and some are lost or late."""
    described = racing(stragglers=0.3, slowdown=5, dropout=0.1)
    counts = Counter(train(SimulatedFaults(Willing(), described, SIZES), 1, 20.0).values())
    assert counts["lost"] > 0 < counts["late"]
    federation = described.federation.model_copy(update={"cohort": counts["ok"]})
    just_enough = described.model_copy(update={"federation": federation})
    for stops, waited_s in ((True, 12.0), (False, 20.0)):
        engine = SimulatedFaults(Willing(), just_enough, SIZES)
        replies = engine.ask("train", dict.fromkeys(FLEET, broadcast(1)), 20.0)
        used = 0
        for reply in replies:
            used += isinstance(reply, Update)
            if stops and used == counts["ok"]:
                break
        replies.close()  # type: ignore[attr-defined]
        assert engine.meter().seconds == waited_s


def test_a_vehicle_that_falls_silent_in_between_is_still_known() -> None:
    class Falling(Willing):
        calls = 0

        def available(self) -> Mapping[str, Enrolment]:
            self.calls += 1
            return super().available() if self.calls == 1 else {}

    engine = SimulatedFaults(Falling(), experiment(dropout=0.1), SIZES)
    engine.available()
    assert len(train(engine, 1)) == len(FLEET)


def test_changes_in_a_broadcast_s_place_take_less_of_a_link() -> None:
    small = replace(broadcast(1), changes=Changes(1, (b"x" * 1000, b"y" * 500), ""))
    engine = SimulatedFaults(Willing(), experiment(dropout=1.0), SIZES)
    before = engine.meter()
    list(engine.ask("train", dict.fromkeys(FLEET[:3], small)))
    assert (engine.meter() - before).bytes_down == 3 * 1500
    engine = SimulatedFaults(Willing(), experiment(), SIZES)
    before = engine.meter()
    list(engine.ask("train", {FLEET[0]: small}))
    assert (engine.meter() - before).seconds == 10.0 + (1500 + SIZES[1]) / 2e6


def test_a_model_of_one_s_own_takes_its_time_as_well() -> None:
    described = experiment(stragglers=0.0, dropout=0.5)
    ditto = described.personal.model_copy(update={"model": "ditto", "epochs": 2})
    took_s = {}
    for name, personal in (("none", described.personal), ("ditto", ditto)):
        with_personal = described.model_copy(update={"personal": personal})
        engine = SimulatedFaults(Willing(), with_personal, SIZES)
        assert FLEET[0] in engine.available()
        took_s[name] = engine._duration_s(FLEET[0], broadcast(1))
    assert took_s == {"none": 12.0, "ditto": 32.0}  # ten images, three times, and 2 s on the link
