"""What every site is asked once: also of those that are away, lost in the middle, or deaf."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.job import Act, Clock, Job, until
from tests.fleet.sites import FakeNetwork, dispatching

from fleetseg.errors import EngineError
from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.server.errands import Errand, Errands
from fleetseg.fleet.sockets import Header

BOTH = {name: Errand({"what": name}, name.encode()) for name in ("one", "two")}


def honest(job: Job, site: str, header: Header, payload: bytes) -> None:
    job.sent(header["task"], site)
    job.reply(header["task"], site, {"did": header["what"], "bytes": len(payload)})


def deaf(job: Job, site: str, header: Header, payload: bytes) -> None:
    """Never fetch a task."""


def dies(job: Job, site: str, header: Header, payload: bytes) -> None:
    """Answer the first errand, and take the segment along at the second."""
    if header["what"] == "one":
        honest(job, site, header, payload)
    else:
        threading.Thread(target=job.die).start()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dispatcher(tmp_path: Path, clock: Clock) -> Iterator[TaskDispatcher]:
    with dispatching(tmp_path, clock) as made:
        yield made


def begin(dispatcher: TaskDispatcher, act: Act, *sites: str) -> Job:
    before = dispatcher.segment
    job = Job(dispatcher._listener.path, sites, act)
    until(lambda: dispatcher.segment > before, "the segment opens")
    return job


def errands(dispatcher: TaskDispatcher, clock: Clock, *sites: str, **changes: Any) -> Errands:
    how = {"network": FakeNetwork(), "absent_s": 5.0, "silent_s": 3.0, **changes}
    return Errands(dispatcher, how.pop("network"), BOTH, sites, clock=clock, **how)


def done(asking: Errands) -> list[tuple[str, str]]:
    return sorted((one.site, one.errand) for one in asking)


ALL = [("a", "one"), ("a", "two"), ("b", "one"), ("b", "two")]


def test_every_site_does_every_errand_once(dispatcher: TaskDispatcher, clock: Clock) -> None:
    job = begin(dispatcher, honest, "a", "b")
    asking = errands(dispatcher, clock, "a", "b")
    answers = list(asking)
    assert sorted((one.site, one.errand) for one in answers) == ALL
    assert {one.header["did"] for one in answers} == {"one", "two"}
    assert {one.header["bytes"] for one in answers} == {3}
    assert asking.missing == {}
    assert len(job.asked) == 2  # one message for all sites of an errand
    job.die()


def test_who_was_lost_in_the_middle_is_asked_for_the_rest(
    dispatcher: TaskDispatcher, clock: Clock
) -> None:
    begin(dispatcher, dies, "a", "b")
    again: list[Job] = []

    def next_segment() -> None:
        until(lambda: not dispatcher.job, "the segment is lost")
        again.append(begin(dispatcher, honest, "a", "b"))

    thread = threading.Thread(target=next_segment)
    thread.start()
    asking = errands(dispatcher, clock, "a", "b")
    assert done(asking) == ALL
    thread.join()
    assert [order["header"]["what"] for order in again[0].asked] == ["two"]
    again[0].die()


def test_who_comes_back_is_let_in_by_a_new_segment(
    dispatcher: TaskDispatcher, clock: Clock
) -> None:
    first = begin(dispatcher, honest, "a")
    network, again = FakeNetwork(back=frozenset("b")), []

    def next_segment() -> None:
        assert first.ended.wait(20)
        until(lambda: not dispatcher.job, "the segment has ended")
        again.append(begin(dispatcher, honest, "a", "b"))

    thread = threading.Thread(target=next_segment)
    thread.start()
    assert done(errands(dispatcher, clock, "a", "b", network=network)) == ALL
    thread.join()
    assert [order["targets"] for order in again[0].asked] == [["b"], ["b"]]
    again[0].die()


def test_who_is_away_deaf_or_revoked_is_named(dispatcher: TaskDispatcher, clock: Clock) -> None:
    def some(job: Job, site: str, header: Header, payload: bytes) -> None:
        (honest if site == "a" else deaf)(job, site, header, payload)

    job = begin(dispatcher, some, "a", "b")
    network = FakeNetwork(banned=frozenset("d"))
    asking, told = errands(dispatcher, clock, "a", "b", "c", "d", network=network), []
    for one in asking:
        told.append((one.site, one.errand))
        if len(told) == 2:
            clock.jump(4)  # "b" has given no sign of life since it joined
            threading.Timer(0.3, clock.jump, [6]).start()
    assert sorted(told) == ALL[:2]
    assert asking.missing == {"b": "no answer", "c": "away", "d": "revoked"}
    job.die()


def test_a_site_at_work_is_waited_for_but_not_for_ever(
    dispatcher: TaskDispatcher, clock: Clock
) -> None:
    def works(job: Job, site: str, header: Header, payload: bytes) -> None:
        job.sent(header["task"], site)
        job.beat(site, busy=header["task"])

    job = begin(dispatcher, works, "a")
    asking = errands(dispatcher, clock, "a", work_s=20.0)
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (list(asking), ended.set()))
    thread.start()
    until(lambda: len(job.asked) == 2, "it is asked")
    for _ in range(6):  # longer than anybody waits for one that is away
        clock.jump(2)
        job.beat("a", busy=job.asked[0]["task"])
        assert not ended.wait(0.15)
    for _ in range(20):
        clock.jump(2)
        job.beat("a", busy=job.asked[0]["task"])
        if ended.wait(0.2):
            break
    thread.join(20)
    assert ended.is_set()
    assert asking.missing == {"a": "no answer within 20 s"}
    job.die()


def test_how_long_the_server_took_to_start_is_nobody_s_absence(
    dispatcher: TaskDispatcher, clock: Clock
) -> None:
    asking = errands(dispatcher, clock, "a")
    answers: list[tuple[str, str]] = []
    thread = threading.Thread(target=lambda: answers.extend(done(asking)))
    thread.start()
    clock.jump(60)
    job = begin(dispatcher, honest, "a")
    thread.join(20)
    assert answers == ALL[:2]
    job.die()


def test_nobody_at_all_is_an_error(dispatcher: TaskDispatcher, clock: Clock) -> None:
    asking = errands(dispatcher, clock, "a")
    clock.jump(200)
    with pytest.raises(EngineError, match="no vehicle has connected for 125 s"):
        list(asking)
