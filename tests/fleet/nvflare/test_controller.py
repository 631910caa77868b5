"""The server's end inside a job: answers are passed on as they are, or fail for their site."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nvflare")

from nvflare.apis.shareable import Shareable, make_reply
from nvflare.private.defs import CellMessageHeaderKeys

from fleetseg.fleet.nvflare.controller import FleetController
from fleetseg.fleet.nvflare.names import BELL, HEADER, HEARS, OK, PAYLOAD, PROGRESS, TASK

ODD = '{"k" : 1.50, "nested": ' + "[" * 987 + "]" * 987 + "}"


def passed_on(header: Any, payload: Any, max_payload: int = 100) -> tuple[dict[str, Any], bytes]:
    controller = FleetController()
    result = make_reply(OK)
    result[HEADER], result[PAYLOAD] = header, payload
    controller._reply("train-1", "car-1", result, max_payload)
    item = controller._out.get_nowait()
    assert item is not None
    return item


def test_an_answer_is_passed_on_as_it_is() -> None:
    message, payload = passed_on(ODD, b"x" * 100)
    assert message == {"is": "reply", "task": "train-1", "site": "car-1", "header": ODD}
    assert payload == b"x" * 100


@pytest.mark.parametrize(
    ("header", "payload", "failure"),
    [
        ("{}", b"x" * 101, ["refused", "oversize"]),
        (" " * (1 << 22), b"", ["refused", "oversize"]),
        (None, b"", ["lost", "engine-error"]),
        ("{}", [b"x"], ["lost", "engine-error"]),
    ],
    ids=["payload", "header", "none", "list"],
)
def test_an_answer_that_does_not_fit_is_a_failure_of_its_site(
    header: Any, payload: Any, failure: list[str]
) -> None:
    message, data = passed_on(header, payload)
    assert json.loads(message["header"])["failure"][:2] == failure
    assert (message["site"], data) == ("car-1", b"")


def test_bytes_of_a_late_answer_are_counted_whatever_it_is() -> None:
    controller, client = FleetController(), SimpleNamespace(name="car-1")
    for payload, expected in ((b"four", 4), (7, 0), (None, 0)):
        result = make_reply(OK)
        result[PAYLOAD] = payload
        controller.process_result_of_unknown_task(client, "t", "id", result, None)
        item = controller._out.get_nowait()
        assert item is not None
        assert item[0] == {"is": "late", "site": "car-1", "bytes": expected}


class JobEngine:
    """NVFlare's engine of the server's part of a job: who was rung."""

    def __init__(self) -> None:
        self.rung: list[list[str]] = []

    def new_context(self) -> Any:
        return contextlib.nullcontext()

    def send_aux_request(self, *, targets: list[str], topic: str, **how: Any) -> None:
        assert (topic, how["timeout"]) == (BELL, 0.0)
        self.rung.append(targets)


def beat(site: str, **said: Any) -> Any:
    request = Shareable()
    request.update({TASK: "", PROGRESS: ""} | said)
    headers = {CellMessageHeaderKeys.CLIENT_NAME: site}
    return SimpleNamespace(
        payload=request, get_header=lambda key, default="": headers.get(key, default)
    )


def test_who_hears_the_bell_is_rung_for_each_task_until_it_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller, engine = FleetController(), JobEngine()
    tasks: list[Any] = []
    controller._engine = engine
    monkeypatch.setattr(controller, "broadcast", lambda task, *where, **how: tasks.append(task))
    controller._beat(beat("car-1", **{HEARS: True}))
    controller._beat(beat("car-2"))  # of the release before
    targets = [f"car-{k}" for k in range(1, 33)]
    header = {"what": "train", "task": "train-1"}
    order = {"do": "ask", "task": "train-1", "targets": targets, "header": header}
    assert controller._handle(order, b"model", None)
    (task,) = tasks
    assert json.loads(task.data[HEADER]) == {**header, "beat_s": 1.6}
    controller._ring(controller._bell.due())
    assert engine.rung == [["car-1"]]
    fetched = SimpleNamespace(client=SimpleNamespace(name="car-1"))
    task.after_task_sent_cb(fetched, None)
    assert controller._bell._calls.keys() == set(targets) - {"car-1"}
    monkeypatch.setattr(controller, "cancel_task", lambda task, fl_ctx: None)
    assert controller._handle({"do": "cancel", "task": "train-1"}, b"", None)
    assert not controller._bell._calls
