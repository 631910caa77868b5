"""The bell: whoever has something to fetch is rung until it has, and asks when it is rung."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fleet.job import until

pytest.importorskip("nvflare")

from nvflare.apis.shareable import Shareable
from nvflare.private.defs import SpecialTaskName, TaskConstant

from fleetseg.fleet.nvflare import bell as module
from fleetseg.fleet.nvflare.bell import Bell, Waiting


class Time:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def rung(bell: Bell, time: Time, seconds: float) -> list[float]:
    """When "a" was rung within so many seconds."""
    at_s = []
    for tenth in range(int(seconds * 10)):
        time.now_s = tenth / 10
        if "a" in bell.due():
            at_s.append(time.now_s)
    return at_s


def test_who_has_been_asked_is_rung_again_until_it_has_fetched() -> None:
    time = Time()
    bell = Bell(lambda sites: None, time)
    bell.listens("a")
    bell.asked("train-1", ["a", "b"])
    assert rung(bell, time, 40) == [0, 1, 3, 7, 15, 25, 35]
    bell.fetched("train-1", "a")
    assert rung(bell, time, 40) == []


def test_who_asks_by_itself_is_not_rung() -> None:
    """A vehicle of the release before, and one that has not said yet that it listens."""
    bell = Bell(lambda sites: None, Time())
    bell.asked("train-1", ["a", "b"])
    assert bell.due() == []
    bell.listens("b")
    assert bell.due() == ["b"]


def test_a_task_that_nobody_waits_for_rings_nobody() -> None:
    bell = Bell(lambda sites: None, Time())
    bell.listens("a")
    bell.asked("train-1", ["a"])
    bell.asked("train-2", ["a"])
    bell.cancelled("train-1")
    assert bell.due() == ["a"]
    bell.asked("train-3", ["a"])  # news are told at once
    bell.cancelled("train-2")
    assert bell.due() == ["a"]
    bell.cancelled("train-3")
    bell.fetched("train-3", "a")
    assert (bell.due(), bell._calls) == ([], {})


def test_the_thread_that_rings_sleeps_until_there_is_somebody_to_ring() -> None:
    told: list[list[str]] = []
    bell = Bell(told.append)
    thread = threading.Thread(target=bell.keep_ringing)
    thread.start()
    bell.asked("train-1", ["a"])
    bell.listens("a")
    until(lambda: told == [["a"]], "a ring")
    bell.fetched("train-1", "a")
    bell.asked("train-2", ["a"])
    until(lambda: told == [["a"], ["a"]], "another one")
    bell.end()
    thread.join(5)
    assert not thread.is_alive()


class Server:
    """NVFlare's answers to questions for tasks, one after another; then there is nothing to do."""

    def __init__(self, *answers: str | None) -> None:
        self.answers, self.asked = list(answers), 0
        self.signal = SimpleNamespace(triggered=False)

    def get_run_abort_signal(self) -> Any:
        return self.signal

    def ask(self, fl_ctx: Any, timeout: Any) -> Any:
        self.asked += 1
        name = self.answers.pop(0) if self.answers else SpecialTaskName.TRY_AGAIN
        if name is None:
            return None
        task = SimpleNamespace(name=name, data=Shareable())
        task.data.set_header(TaskConstant.WAIT_TIME, 10.0)
        return task


def pause_of(task: Any) -> float:
    return float(task.data.get_header(TaskConstant.WAIT_TIME))


def test_until_its_first_task_a_vehicle_asks_as_often_as_the_server_says() -> None:
    server = Server(SpecialTaskName.TRY_AGAIN, "hello", None, SpecialTaskName.END_RUN)
    get = Waiting(1e6).before(server.ask)
    assert pause_of(get(server, 5.0)) == 10.0
    task = get(server, 5.0)
    assert (task.name, pause_of(task)) == ("hello", 0.0)  # there may be more: asked at once
    assert get(server, 5.0) is None  # a question that failed is NVFlare's to repeat
    assert get(server, 5.0).name == SpecialTaskName.END_RUN


@pytest.fixture
def idle() -> tuple[Server, Waiting, list[Any], threading.Thread]:
    """A vehicle that has had a task and has no other, so that it waits."""
    server, waiting, got = Server("hello"), Waiting(1e6), list[Any]()
    get = waiting.before(server.ask)
    get(server, 5.0)
    thread = threading.Thread(target=lambda: got.append(get(server, 5.0)))
    thread.start()
    until(lambda: server.asked == 2, "the next question")
    return server, waiting, got, thread


Idle = tuple[Server, Waiting, list[Any], threading.Thread]


def test_who_is_rung_asks_at_once(idle: Idle) -> None:
    server, waiting, got, thread = idle
    server.answers.append("train")
    assert got == []
    waiting.ring()
    thread.join(5)
    assert (got[0].name, pause_of(got[0]), server.asked) == ("train", 0.0, 3)


def test_a_ring_during_a_question_is_not_lost(idle: Idle) -> None:
    """The server's answer may have been on its way already when the task came."""
    server, waiting, got, thread = idle
    waiting.ring()
    until(lambda: server.asked == 3, "a question for nothing")
    server.answers.append("train")
    waiting.ring()
    thread.join(5)
    assert got[0].name == "train"


def test_who_waits_notices_the_end(idle: Idle) -> None:
    server, _, got, thread = idle
    server.signal.triggered = True
    thread.join(5)
    assert pause_of(got[0]) == 0.0  # and NVFlare's loop looks at once


def test_who_is_never_rung_asks_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    server = Server("hello", SpecialTaskName.TRY_AGAIN, SpecialTaskName.TRY_AGAIN, "train")
    get = Waiting(0.01).before(server.ask)
    get(server, 5.0)
    assert get(server, 5.0).name == "train"
    assert server.asked == 4
