"""The server's end inside a job: answers are passed on as they are, or fail for their site."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nvflare")

from nvflare.apis.shareable import make_reply

from fleetseg.fleet.nvflare.controller import FleetController
from fleetseg.fleet.nvflare.names import HEADER, OK, PAYLOAD

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
