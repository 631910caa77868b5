"""The dispatcher: segments that come and go, and answers that find their task."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fleet.job import Act, Clock, Job, close, until

from fleetseg.errors import CheckpointError
from fleetseg.fleet.message_log import MessageLog, message_digest, read_message_log
from fleetseg.fleet.server.dispatcher import Event, TaskBatch, TaskDispatcher, names_of
from fleetseg.fleet.sockets import Header, Listener, private_directory

HELLO = {"what": "hello"}
TRAIN: Header = {**HELLO, "what": "train"}
Start = Callable[..., Job]


def nothing(job: Job, site: str, header: Header, payload: bytes) -> None:
    """A site that does not answer."""


def echo(job: Job, site: str, header: Header, payload: bytes) -> None:
    """A site that fetches and sends back what it was sent."""
    job.sent(header["task"], site)
    job.reply(header["task"], site, {"echo": header["what"]}, payload)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dispatcher(tmp_path: Path, clock: Clock) -> Iterator[TaskDispatcher]:
    folder = private_directory()
    made = TaskDispatcher(Listener(folder / "link"), MessageLog(tmp_path / "ingress.jsonl"), clock)
    yield made
    close(made)
    folder.rmdir()


@pytest.fixture
def start(dispatcher: TaskDispatcher) -> Iterator[Start]:
    """Start a segment and wait until the dispatcher knows of it."""
    jobs = []

    def begin(
        act: Act = nothing, sites: tuple[str, ...] = ("a", "b"), name: str = "job", **told: float
    ) -> Job:
        before = dispatcher.segment
        jobs.append(Job(dispatcher._listener.path, sites, act, name, **told))
        until(lambda: dispatcher.segment > before, "the segment opens")
        return jobs[-1]

    yield begin
    for job in jobs:
        job.die()


def heard(batch: TaskBatch, count: int) -> list[Event]:
    """Wait for a number of events; replies are acknowledged at once."""
    events = []
    for _ in range(count):
        event = batch.next(20)
        assert event is not None
        if event.what == "reply":
            batch.acknowledge()
        events.append(event)
    return events


def test_a_segment_has_a_name_a_number_and_sites(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    assert (dispatcher.job, dispatcher.segment, dispatcher.sites) == ("", 0, {})
    start(sites=("a", "b"), name="first")
    assert (dispatcher.job, dispatcher.segment, set(dispatcher.sites)) == ("first", 1, {"a", "b"})
    assert dispatcher.began_s <= clock()
    assert 0 <= dispatcher.silent_s("a") < 20
    assert dispatcher.silent_s("stranger") == float("inf")


def test_a_segment_that_ends_takes_its_sites_along_and_another_may_follow(
    dispatcher: TaskDispatcher, start: Start
) -> None:
    start(name="first").die()
    until(lambda: not dispatcher.job, "the segment ends")
    assert dispatcher.sites == {}
    assert dispatcher.silent_s("a") == float("inf")
    start(sites=("b",), name="second")
    assert (dispatcher.job, dispatcher.segment, set(dispatcher.sites)) == ("second", 2, {"b"})


def test_replies_find_their_task_and_are_listed(
    dispatcher: TaskDispatcher, start: Start, tmp_path: Path
) -> None:
    job = start(echo)
    with TaskBatch(dispatcher) as first, TaskBatch(dispatcher) as second:
        one = first.ask({"what": "train", "x": 1}, b"one", ["a", "b"])
        two = second.ask({"what": "evaluate"}, b"twoo", ["b"])
        assert one != two
        replies = [e for e in heard(first, 4) if e.what == "reply"]
        assert {(e.task, e.site, e.payload) for e in replies} == {
            (one, "a", b"one"),
            (one, "b", b"one"),
        }
        assert [e.what for e in heard(second, 2)] == ["sent", "reply"]
    assert job.asked[0]["header"] == {"what": "train", "x": 1, "task": one}
    assert (dispatcher.bytes_down, dispatcher.bytes_up) == (3 + 3 + 4, 3 + 3 + 4)
    lines = read_message_log(tmp_path / "ingress.jsonl")
    assert [(line["kind"], line["vehicle"]) for line in lines] == [
        ("train", "a"),
        ("train", "b"),
        ("evaluate", "b"),
    ]
    assert lines[0]["sha256"] == message_digest({"echo": "train"}, b"one")


def test_an_errand_that_is_over_cancels_and_hears_no_more(
    dispatcher: TaskDispatcher, start: Start
) -> None:
    job = start()
    with TaskBatch(dispatcher) as batch:
        task = batch.ask(HELLO, b"", ["a", "b"])
        job.reply(task, "a", {})
        heard(batch, 1)
    until(lambda: job.cancelled == [task], "the cancellation")
    with TaskBatch(dispatcher) as other:
        job.reply(task, "b", {})  # too late, and no trouble
        again = other.ask(HELLO, b"", ["a"])
        job.reply(again, "a", {"k": 1})
        (event,) = heard(other, 1)
        assert event.header == {"k": 1}
    assert batch.next(0.01) is None


def test_an_errand_without_a_segment_is_over_at_once(dispatcher: TaskDispatcher) -> None:
    with TaskBatch(dispatcher) as batch:
        batch.ask(HELLO, b"", ["a"])
        assert [e.what for e in heard(batch, 1)] == ["over"]


@pytest.mark.parametrize("end", ["die", "drop", "end_segment"])
def test_an_errand_hears_that_its_segment_is_over(
    dispatcher: TaskDispatcher, start: Start, end: str
) -> None:
    job = start()
    with TaskBatch(dispatcher) as batch:
        batch.ask(HELLO, b"", ["a"])
        job.die() if end == "die" else getattr(dispatcher, end)()
        assert [e.what for e in heard(batch, 1)] == ["over"]
    assert job.ended.wait(20)
    until(lambda: not dispatcher.job, "the segment ends")


def test_an_end_without_a_segment_is_no_trouble(dispatcher: TaskDispatcher) -> None:
    dispatcher.end_segment()
    dispatcher.drop()


def test_events_come_in_order_however_many(dispatcher: TaskDispatcher, start: Start) -> None:
    sites = tuple(f"car-{k:03d}" for k in range(150))
    start(echo, sites)
    with TaskBatch(dispatcher) as batch:
        batch.ask(HELLO, b"x", sites)
        events = heard(batch, 300)
    assert [e.site for e in events if e.what == "reply"] == list(sites)


def test_two_updates_wait_at_most(dispatcher: TaskDispatcher, start: Start) -> None:
    job = start(echo, ("a", "b", "c", "d"))
    with TaskBatch(dispatcher) as batch:
        batch.ask(TRAIN, b"x", ["a", "b", "c", "d"])
        taken: list[Event] = []
        while sum(e.what == "reply" for e in taken) < 2:
            event = batch.next(20)
            assert event is not None
            taken.append(event)
        # Nothing was acknowledged: the third is in the dispatcher's hands and no further.
        later = [batch.next(0.3), batch.next(0.3)]
        assert [e.what for e in later if e is not None] == ["sent"]
        batch.acknowledge()
        assert batch.next(20) is not None
    # The batch is over, so nothing holds the dispatcher up any more.
    with TaskBatch(dispatcher) as other:
        other.ask(TRAIN, b"y", ["a"])
        assert heard(other, 2)[1].payload == b"y"
    assert not job.ended.is_set()


def test_late_replies_count_as_bytes(dispatcher: TaskDispatcher, start: Start) -> None:
    job = start()
    job.send({"is": "late", "site": "a", "bytes": 1234})
    job.send({"is": "late", "site": "stranger", "bytes": 1})
    until(lambda: dispatcher.bytes_up == 1235, "the bytes")


# Signs of life


def test_beats_are_signs_of_life(dispatcher: TaskDispatcher, start: Start, clock: Clock) -> None:
    job = start()
    clock.jump(100)
    until(lambda: dispatcher.silent_s("a") >= 100, "nothing has come")
    job.beat("a", busy="train-1")
    until(lambda: dispatcher.sites["a"].busy == "train-1", "the beat")
    assert dispatcher.silent_s("a") < 50
    assert dispatcher.silent_s("b") >= 100
    job.beat("c")  # a site that came later
    until(lambda: "c" in dispatcher.sites, "the site")


def test_signs_of_life_that_wait_behind_updates_are_read_before_anyone_is_suspected(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    job = start(echo)
    with TaskBatch(dispatcher) as batch:
        for _ in range(3):  # more than there is room for: the reader waits for the server's work
            batch.ask(TRAIN, b"update", ["a"])
        until(lambda: batch.room._cond._waiters, "the reader waits")  # with the third reply in hand
        job.beat("b", busy="train-9")
        clock.jump(100)
        assert dispatcher.silent_s("b") < 50
        assert not dispatcher.all_silent(15.0)
        assert dispatcher.job_silent_s() < 50
        heard(batch, 6)
        until(lambda: dispatcher.sites["b"].busy == "train-9", "its sign of life is read")
        assert dispatcher.silent_s("b") < 50


def test_a_job_that_says_nothing_is_silent_itself(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    assert dispatcher.job_silent_s() == 0.0
    job = start()
    job.stopped = True
    clock.jump(100)
    until(lambda: dispatcher.job_silent_s() >= 100, "nothing comes")
    job.stopped = False
    until(lambda: dispatcher.job_silent_s() < 50, "it says that it is alive")
    assert all(dispatcher.silent_s(site) >= 100 for site in "ab")  # that is no word of theirs
    assert dispatcher.all_silent(15.0)


def test_whatever_a_site_sends_is_a_sign_of_life(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    job = start()
    with TaskBatch(dispatcher) as batch:
        task = batch.ask(HELLO, b"", ["a", "b"])
        clock.jump(100)
        job.sent(task, "a")
        job.reply(task, "b", {})
        heard(batch, 2)
        assert max(dispatcher.silent_s("a"), dispatcher.silent_s("b")) < 50


def test_a_site_that_is_gone_is_silent_until_it_beats(
    dispatcher: TaskDispatcher, start: Start
) -> None:
    job = start()
    job.send({"is": "gone", "site": "a"})
    job.send({"is": "gone", "site": "stranger"})
    until(lambda: dispatcher.silent_s("a") == float("inf"), "the news")
    assert dispatcher.silent_s("b") < 50
    job.beat("a")
    until(lambda: dispatcher.silent_s("a") < 50, "the beat")


def test_an_old_task_is_overdue_until_a_beat_or_a_late_reply_says_otherwise(
    dispatcher: TaskDispatcher, start: Start
) -> None:
    job = start()
    for site in dispatcher.sites.values():
        site.overdue = "train-1"
    job.beat("a", busy="train-1")
    until(lambda: dispatcher.sites["a"].busy == "train-1", "the beat")
    assert dispatcher.sites["a"].overdue == "train-1"
    job.beat("a", busy="")
    until(lambda: not dispatcher.sites["a"].overdue, "a is free")
    assert dispatcher.sites["b"].overdue == "train-1"
    job.send({"is": "late", "site": "b", "bytes": 7})
    until(lambda: not dispatcher.sites["b"].overdue, "b is free")


def test_whoever_waits_hears_of_changes(dispatcher: TaskDispatcher, start: Start) -> None:
    heard_of = threading.Event()

    def wait() -> None:
        with dispatcher.changed:
            if dispatcher.changed.wait_for(lambda: dispatcher.job, timeout=20):
                heard_of.set()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    start()
    assert heard_of.wait(20)


# What must not stop the dispatcher

bad_thread = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


def still_listens(dispatcher: TaskDispatcher, job: Job) -> bool:
    job.beat("b", busy="listening?")
    with contextlib.suppress(AssertionError, KeyError):
        return bool(until_soon(lambda: dispatcher.sites["b"].busy == "listening?"))
    return False


def until_soon(condition: Callable[[], bool]) -> bool:
    waiting = threading.Event()
    return any(condition() or waiting.wait(0.05) for _ in range(20))


@bad_thread
@pytest.mark.parametrize("text", ["", "{", "7", "null", "[" * 100_000], ids=lambda t: repr(t[:5]))
def test_a_reply_that_cannot_be_read_does_not_stop_the_board(
    dispatcher: TaskDispatcher, start: Start, text: str
) -> None:
    job = start()
    with TaskBatch(dispatcher) as batch:
        task = batch.ask(HELLO, b"", ["a"])
        job.reply_text(task, "a", text)
        assert still_listens(dispatcher, job)


@pytest.mark.parametrize(("number", "text"), [(28, "no space left"), (13, "cannot be written")])
def test_what_cannot_be_listed_is_not_delivered_and_is_fatal(
    dispatcher: TaskDispatcher,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    text: str,
) -> None:
    def fails(*arguments: object, **named: object) -> None:
        raise OSError(number, "a reason")

    job = start()
    with TaskBatch(dispatcher) as batch:
        task = batch.ask(HELLO, b"", ["a"])
        with monkeypatch.context() as patch:
            patch.setattr(dispatcher._message_log, "append", fails)
            job.reply(task, "a", {})
            assert [e.what for e in heard(batch, 1)] == ["over"]
    assert job.ended.wait(20)
    assert isinstance(dispatcher.fatal, CheckpointError)
    assert f"ingress.jsonl: {text}" in str(dispatcher.fatal)
    assert start().asked == []  # the dispatcher still listens


def test_names_for_a_person() -> None:
    assert names_of({"b": 1, "a": 2}) == "a, b"
    assert names_of({}) == "none"


@pytest.mark.parametrize("depth", [40, 960, 987, 5000])
def test_a_reply_that_is_nested_deep_is_refused_and_the_next_one_heard(
    dispatcher: TaskDispatcher, start: Start, depth: int
) -> None:
    """At some depths Python can read what it cannot write: the list of messages would fail."""
    job = start()
    with TaskBatch(dispatcher) as batch:
        task = batch.ask(HELLO, b"", ["a", "b"])
        job.reply_text(task, "a", '{"failure": ["lost", ' + "[" * depth + "]" * depth + ', ""]}')
        job.reply(task, "b", {"fine": 1})
        refused, fine = heard(batch, 2)
    assert refused.header["failure"][:2] == ["refused", "malformed"]
    assert fine.header == {"fine": 1}
    assert dispatcher.fatal is None


def test_what_cannot_be_handled_is_told_and_not_waited_for(
    dispatcher: TaskDispatcher, start: Start
) -> None:
    job = start()
    job.send({"is": "beat", "site": "a"})  # without what it is busy with
    until(lambda: dispatcher.fatal is not None, "the error")
    assert "a message could not be handled (KeyError: 'busy')" in str(dispatcher.fatal)


def test_a_reply_is_listed_by_the_bytes_that_came(
    dispatcher: TaskDispatcher, start: Start, tmp_path: Path
) -> None:
    """Written anew, it would have other bytes than on the vehicle's list."""
    job = start()
    texts = {"a": '{"k" :1.50}', "b": '{"k": ' + "[" * 987 + "]" * 987 + "}"}
    with TaskBatch(dispatcher) as batch:
        task = batch.ask(HELLO, b"", ["a", "b"])
        for site, text in texts.items():
            job.reply_text(task, site, text)
        heard(batch, 2)
    lines = read_message_log(tmp_path / "ingress.jsonl")
    assert [(line["vehicle"], line["bytes"], line["sha256"]) for line in lines] == [
        (site, len(text), message_digest(text.encode(), b"")) for site, text in texts.items()
    ]


def test_a_dispatcher_that_dies_ends_the_segment_and_says_why(
    dispatcher: TaskDispatcher, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: object) -> None:
        raise RecursionError("in the reading thread")

    job = start()
    with TaskBatch(dispatcher) as batch:
        batch.ask(HELLO, b"", ["a"])
        with monkeypatch.context() as patch:
            patch.setattr(dispatcher, "_error_of", dies)
            job.beat("a")
            until(lambda: dispatcher.fatal is not None, "the error")
    assert "'fleetseg-dispatcher' has died (RecursionError: in the reading" in str(dispatcher.fatal)
    assert job.ended.wait(20)


def test_a_segment_has_done_something_when_a_client_s_task_is_answered(
    dispatcher: TaskDispatcher, start: Start
) -> None:
    for number in (1, 2):
        job = start(echo, name=str(number))
        with TaskBatch(dispatcher) as batch:
            batch.ask(HELLO, b"", ["a"])
            heard(batch, 2)
            assert dispatcher.answered < number  # a hello is no work
            job.reply("unknown-7", "b", {})
            task = batch.ask(TRAIN, b"x", [])
            job.reply(task, "b", {"failure": ["lost", "aborted", ""]})  # as where a job ends
            heard(batch, 1)
            assert dispatcher.answered < number
            batch.ask(TRAIN, b"x", ["a"])
            heard(batch, 2)
            assert dispatcher.answered == number
        assert not dispatcher.ending
        dispatcher.end_segment()
        assert dispatcher.ending
        until(lambda: not dispatcher.job, "the segment ends")


# Where there are many, each says less


def silent(dispatcher: TaskDispatcher, clock: Clock, seconds: float) -> dict[str, int]:
    """How long each is silent, in whole seconds, after so many."""
    clock.jump(seconds)
    until(lambda: dispatcher.behind_s() < 1, "all is read")
    return {name: int(dispatcher.silent_s(name)) for name in dispatcher.sites}


def test_who_is_idle_in_a_large_fleet_is_missed_later(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    start(beat_s=25.0)
    assert silent(dispatcher, clock, 24) == {"a": 0, "b": 0}
    assert not dispatcher.all_silent(5)
    assert silent(dispatcher, clock, 16) == {"a": 16, "b": 16}
    assert dispatcher.all_silent(15)


def test_who_is_asked_is_missed_from_then_on(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    """It is rung, and gives a sign of life for it."""
    job = start(beat_s=25.0)
    clock.jump(10)
    with TaskBatch(dispatcher) as batch:
        batch.ask(TRAIN, b"", ["a"])
        assert silent(dispatcher, clock, 10) == {"a": 10, "b": 0}
        job.beat("a")
        until(lambda: dispatcher.silent_s("a") < 1, "a sign of life")
        assert silent(dispatcher, clock, 20) == {"a": 0, "b": 16}


def test_who_is_asked_late_is_missed_from_when_it_should_have_been_heard(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    start()  # signs of life once a second
    clock.jump(10)
    with TaskBatch(dispatcher) as batch:
        batch.ask(TRAIN, b"", ["a"])
        assert silent(dispatcher, clock, 5) == {"a": 15, "b": 15}


@pytest.mark.parametrize(("asked", "silent_s"), [(4, 20), (100, 16), (500, 0)])
def test_who_is_at_work_is_missed_by_how_many_were_asked(
    dispatcher: TaskDispatcher, start: Start, clock: Clock, asked: int, silent_s: int
) -> None:
    job = start(sites=("a",), beat_s=25.0)
    with TaskBatch(dispatcher) as batch:
        task = batch.ask(TRAIN, b"", ["a", *(f"other-{k}" for k in range(1, asked))])
        job.beat("a", busy=task)
        until(lambda: dispatcher.sites["a"].busy, "it is at work")
        assert silent(dispatcher, clock, 20) == {"a": silent_s}
    job.beat("a", busy=task)  # nobody waits for that any more: as if it were idle
    assert silent(dispatcher, clock, 20) == {"a": 0}


def test_who_has_been_given_up_by_the_network_is_not_heard_by_being_asked(
    dispatcher: TaskDispatcher, start: Start, clock: Clock
) -> None:
    job = start(beat_s=25.0)
    job.send({"is": "gone", "site": "a"})
    until(lambda: dispatcher.silent_s("a") == float("inf"), "a is gone")
    with TaskBatch(dispatcher) as batch:
        batch.ask(TRAIN, b"", ["a"])
        assert dispatcher.silent_s("a") == float("inf")
