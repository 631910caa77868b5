"""A vehicle's end inside a job: passes on byte by byte, answers what is no request, and lives."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fleet.job import until

pytest.importorskip("nvflare")

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import SystemConfigs
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.fuel.utils.config_service import ConfigService

from fleetseg.fleet.nvflare import executor as module
from fleetseg.fleet.nvflare.executor import TrainerExecutor
from fleetseg.fleet.nvflare.names import (
    BEAT,
    BELL,
    HEADER,
    HEARS,
    HEART_S,
    IDLE_BEAT_S,
    OWN_VARIABLE,
    PAYLOAD,
    TASK,
    TRAINER_VARIABLE,
)
from fleetseg.fleet.sockets import Listener, private_directory

ODD = b'{"k" : 1.50, "nested": ' + b"[" * 987 + b"]" * 987 + b"}"


@pytest.fixture
def trainer(own: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A trainer that answers every request with a header that nobody may write anew."""
    asked: list[Any] = []
    folder = private_directory()
    listener = Listener(folder / "trainer")

    def serve() -> None:
        while (connection := listener.accept(timeout_s=10)) is not None:
            asked.append(connection.receive(timeout_s=10))
            raw = connection._connection
            raw.sendall(len(ODD).to_bytes(4, "little") + (3).to_bytes(8, "little") + ODD + b"xyz")
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    monkeypatch.setenv(TRAINER_VARIABLE, str(folder / "trainer"))
    yield asked
    listener.close()
    folder.rmdir()


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vehicle's own folder, and the place of a trainer that is not there yet."""
    monkeypatch.setenv(OWN_VARIABLE, str(tmp_path))
    monkeypatch.setenv(TRAINER_VARIABLE, str(tmp_path / "trainer"))


def execute(header: Any) -> tuple[str, bytes]:
    request, fl_ctx = Shareable(), FLContext()
    request[HEADER], request[PAYLOAD] = header, b"model"
    reply = TrainerExecutor().execute("fleetseg", request, fl_ctx, Signal())
    return reply[HEADER], reply[PAYLOAD]


def test_a_trainer_s_answer_is_passed_on_byte_by_byte(trainer: list[Any]) -> None:
    assert execute('{"what": "train", "task": "train-1"}') == (ODD.decode(), b"xyz")
    assert trainer == [({"what": "train", "task": "train-1"}, b"model")]


@pytest.mark.parametrize("header", ["", "[]", ODD.decode(), '{"task": NaN}', '{"a": 1, "a": 2}'])
def test_a_request_that_is_none_is_answered_so(header: str) -> None:
    text, payload = execute(header)
    assert json.loads(text)["failure"][:2] == ["refused", "malformed"]
    assert payload == b""


class Engine:
    """NVFlare's, where signs of life fail as often as it is told."""

    def __init__(self, fails: int) -> None:
        self.fails, self.sent = fails, 0

    def new_context(self) -> Any:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("no connection")
        self.sent += 1
        raise SystemExit  # enough for a test


@pytest.mark.parametrize("fails", [0, 4])
def test_a_sign_of_life_may_fail(fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUICK_S", 0.001)
    engine = Engine(fails)
    with pytest.raises(SystemExit):
        TrainerExecutor()._beats(engine)
    assert engine.sent == 1


def test_signs_of_life_that_fail_one_after_another_end_their_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vehicle that only looks dead would be lost for the whole job."""
    monkeypatch.setattr(module, "QUICK_S", 0.001)
    with pytest.raises(RuntimeError, match="no connection"):
        TrainerExecutor()._beats(Engine(5))


class Beaten:
    """NVFlare's engine of a vehicle, with the time of every sign of life."""

    def __init__(self) -> None:
        self.beats: list[tuple[float, str, bool]] = []
        self.handlers: dict[str, Any] = {}

    def new_context(self) -> Any:
        return contextlib.nullcontext()

    def send_aux_request(self, *, topic: str, request: Any, **how: Any) -> None:
        assert topic == BEAT
        self.beats.append((time.monotonic(), request[TASK], request[HEARS]))

    def register_aux_message_handler(self, topic: str, message_handle_func: Any) -> None:
        self.handlers[topic] = message_handle_func

    def get_task_assignment(self, fl_ctx: Any, timeout: Any) -> None:
        raise AssertionError("nobody asks here")


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Begin a job with some settings: an executor and its engine."""
    begun: list[tuple[TrainerExecutor, Any]] = []
    monkeypatch.setattr(module, "end_with_parent", lambda: None)

    def make(**settings: float) -> tuple[TrainerExecutor, Beaten]:
        monkeypatch.setattr(ConfigService, "_sections", {SystemConfigs.APPLICATION_CONF: settings})
        monkeypatch.setattr(ConfigService, "_var_values", {})
        engine, executor = Beaten(), TrainerExecutor()
        fl_ctx: Any = SimpleNamespace(get_engine=lambda: engine)
        begun.append((executor, fl_ctx))
        executor.handle_event(EventType.START_RUN, fl_ctx)
        until(lambda: engine.beats, "a sign of life at once")
        return executor, engine

    yield make
    for executor, fl_ctx in begun:
        executor.handle_event(EventType.END_RUN, fl_ctx)


def test_who_is_idle_says_little_and_what_is_new_at_once(
    begin: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, trainer: list[Any]
) -> None:
    """In thousandths of the usual times: idle each 600 s, at work each 4."""
    monkeypatch.setattr(module, "QUICK_S", 0.001)
    executor, engine = begin(**{HEART_S: 50.0, IDLE_BEAT_S: 0.6})
    until(lambda: len(engine.beats) > 9, "fewer and fewer signs of life")  # 1 2 4 8 ... 256 512
    *_, before, last = (at_s for at_s, _, _ in engine.beats)
    assert last - before > 0.2
    assert all(beat[1:] == ("", True) for beat in engine.beats)
    count = len(engine.beats)
    engine.handlers[BELL](topic=BELL, request=Shareable(), fl_ctx=None)
    until(lambda: len(engine.beats) > count + 2, "who is rung answers with a sign of life")
    assert engine.beats[count][0] - last < 0.5
    request, fl_ctx = Shareable(), FLContext()
    request[HEADER], request[PAYLOAD] = '{"task": "train-1", "beat_s": 0.004}', b"model"
    executor.execute("fleetseg", request, fl_ctx, Signal())
    until(lambda: engine.beats[-1][1] == "train-1", "who begins to work says so")
    count = len(engine.beats)
    time.sleep(0.1)
    assert len(engine.beats) - count > 5  # as often as it was told
    executor.handle_event(EventType.AFTER_SEND_TASK_RESULT, fl_ctx)
    until(lambda: engine.beats[-1][1] == "", "who has answered says so")


def test_with_a_server_that_has_no_bell_all_is_as_it_was(begin: Callable[..., Any]) -> None:
    executor, engine = begin()
    assert engine.beats[0][1:] == ("", False)
    assert engine.handlers == {}
    assert engine.get_task_assignment.__self__ is engine
    assert executor._idle_beat_s == 1.0


@pytest.mark.parametrize("told", [None, "x", -1, 0, float("nan"), 1e9, True])
def test_how_often_to_say_something_is_within_bounds_whatever_is_told(told: Any) -> None:
    assert 1.0 <= module._seconds(told) <= 600.0
