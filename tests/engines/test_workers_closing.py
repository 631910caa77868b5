"""A round that is closed before all have answered leaves no answer to the next."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.experiments import tiny_experiment

import fleetseg
from fleetseg.clients import open_fleet_data
from fleetseg.engines.inprocess import InProcessEngine
from fleetseg.engines.workers import WorkersEngine
from fleetseg.federation import rounds
from fleetseg.federation.messages import Broadcast, Evaluation, Update
from fleetseg.federation.tensors import read_state
from fleetseg.runs.setup import RunSetup, set_up


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def setup(cache: Path) -> RunSetup:
    experiment = tiny_experiment(cache, evaluation={"on_clients": True})
    return set_up(experiment, open_fleet_data(experiment), cache / "run", None, rounds.Watcher())


@pytest.fixture(scope="module")
def engine(setup: RunSetup) -> Iterator[WorkersEngine]:
    with WorkersEngine(setup.fleet_data.clients, setup.runtime, 2) as running:
        yield running


def broadcast(setup: RunSetup, round_: int) -> Broadcast:
    return Broadcast(round_, read_state(setup.runtime.model, setup.runtime.exchange.model))


def test_a_round_after_a_closed_one_has_its_own_answers(
    setup: RunSetup, engine: WorkersEngine
) -> None:
    everybody = sorted(setup.fleet_data.clients)
    first, second = broadcast(setup, 1), broadcast(setup, 2)
    for taken in (1, 3):
        replies = engine.ask("train", dict.fromkeys(everybody, first))
        for _ in range(taken):
            assert isinstance(next(replies), Update)
        replies.close()  # type: ignore[attr-defined]
        answers = list(engine.ask("train", dict.fromkeys(everybody[:2], second)))
        assert sorted(a.client_id for a in answers) == everybody[:2]
        assert all(isinstance(a, Update) and a.round == 2 for a in answers)


def test_scores_after_a_closed_round_are_scores(setup: RunSetup, engine: WorkersEngine) -> None:
    everybody = sorted(setup.fleet_data.clients)
    replies = engine.ask("train", dict.fromkeys(everybody, broadcast(setup, 1)))
    next(replies)
    replies.close()  # type: ignore[attr-defined]
    scores = list(engine.ask("evaluate", dict.fromkeys(everybody, broadcast(setup, 1))))
    assert sorted(s.client_id for s in scores) == everybody
    assert all(isinstance(s, Evaluation) for s in scores)


def test_a_round_that_never_began_may_be_closed(setup: RunSetup, engine: WorkersEngine) -> None:
    everybody, model = sorted(setup.fleet_data.clients), broadcast(setup, 1)
    engine.ask("train", dict.fromkeys(everybody, model)).close()  # type: ignore[attr-defined]
    scores = engine.ask("evaluate", dict.fromkeys(everybody[:1], model))
    assert [s.client_id for s in scores] == everybody[:1]


def test_a_worker_that_dies_while_a_round_is_closed_is_replaced(
    setup: RunSetup, engine: WorkersEngine
) -> None:
    everybody = sorted(setup.fleet_data.clients)
    replies = engine.ask("train", dict.fromkeys(everybody, broadcast(setup, 1)))
    next(replies)
    pid = engine._workers[0].process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    replies.close()  # type: ignore[attr-defined]
    answers = list(engine.ask("train", dict.fromkeys(everybody, broadcast(setup, 2))))
    assert sorted(a.client_id for a in answers) == everybody
    assert all(isinstance(a, Update) for a in answers)


def test_updates_after_a_closed_round_have_the_bits_of_one_process(
    setup: RunSetup, engine: WorkersEngine
) -> None:
    everybody = sorted(setup.fleet_data.clients)
    model = broadcast(setup, 3)
    serial = InProcessEngine(setup.fleet_data.clients, setup.runtime)
    expected = {
        r.client_id: r.change.digest()
        for r in serial.ask("train", dict.fromkeys(everybody, model))
        if isinstance(r, Update)
    }
    replies = engine.ask("train", dict.fromkeys(everybody, model))
    next(replies)
    replies.close()  # type: ignore[attr-defined]
    for reply in engine.ask("train", dict.fromkeys(everybody, model)):
        assert isinstance(reply, Update)
        assert reply.change.digest() == expected[reply.client_id]


def test_a_run_with_over_selection_is_the_same_in_each_engine(cache: Path, tmp_path: Path) -> None:
    """Who is first is the virtual clock's to say: it must not depend on how many workers run."""

    def go(name: str, **engine: object) -> fleetseg.Run:
        experiment = tiny_experiment(
            cache,
            federation={"rounds": 2, "cohort": 2.0, "over_selection": 2.0},
            engine=engine,
        )
        return fleetseg.run(experiment, out=tmp_path / name)

    run = go("workers", kind="workers", workers=2)
    for record in run.records:
        assert len(record.cohort) == 4
        assert len(record.accepted) == 2
        assert [(f.kind, f.reason) for f in record.failures] == [("late", "surplus")] * 2
        assert record.quorum
    alone = go("alone", kind="inprocess")
    assert alone.model_sha256 == run.model_sha256
    assert [r.accepted for r in alone.records] == [r.accepted for r in run.records]


def test_clients_that_are_sent_different_models_train_from_their_own(
    setup: RunSetup, engine: WorkersEngine
) -> None:
    """Of clusters and personal models: what most are sent is no one else's."""
    common, own = broadcast(setup, 1), broadcast(setup, 1)
    own.state.values_F.mul_(0.5)
    asks = {name: common for name in sorted(setup.fleet_data.clients)}
    asks[min(asks)] = own
    asks[max(asks)] = broadcast(setup, 1)
    asks[max(asks)].state.values_F.mul_(0.25)
    serial = InProcessEngine(setup.fleet_data.clients, setup.runtime)
    digests = []
    for running in (serial, engine):
        replies = running.ask("train", asks)
        digests.append({r.client_id: r.change.digest() for r in replies if isinstance(r, Update)})
    assert digests[0] == digests[1]
    assert len(set(digests[0].values())) == len(asks)
