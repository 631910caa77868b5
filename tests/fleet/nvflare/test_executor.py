"""A vehicle's end inside a job: passes on byte by byte, answers what is no request, and lives."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvflare")

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from fleetseg.fleet.nvflare import executor as module
from fleetseg.fleet.nvflare.executor import TrainerExecutor
from fleetseg.fleet.nvflare.names import HEADER, OWN_VARIABLE, PAYLOAD, TRAINER_VARIABLE
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
    monkeypatch.setattr(module, "_BEAT_S", 0.001)
    engine = Engine(fails)
    with pytest.raises(SystemExit):
        TrainerExecutor()._beats(engine)
    assert engine.sent == 1


def test_signs_of_life_that_fail_one_after_another_end_their_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A vehicle that only looks dead would be lost for the whole job."""
    monkeypatch.setattr(module, "_BEAT_S", 0.001)
    with pytest.raises(RuntimeError, match="no connection"):
        TrainerExecutor()._beats(Engine(5))
