"""What one site sends is its own trouble, however large or odd it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fleet.job import Clock, Job, close, until

from fleetseg.fleet.message_log import MessageLog
from fleetseg.fleet.reply_limits import max_payload_of, oversize, relayed
from fleetseg.fleet.server.dispatcher import TaskBatch, TaskDispatcher
from fleetseg.fleet.sockets import (
    MAX_HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_REPLY_HEADER,
    Listener,
    header_text,
    private_directory,
)


def failure_of(passed: tuple[str, bytes] | None) -> list[str]:
    assert passed is not None
    assert passed[1] == b""
    failure = json.loads(passed[0])["failure"]
    assert isinstance(failure, list)
    return failure[:2]


def test_what_fits_is_passed_on_as_it_is() -> None:
    header = '{"a" : 1.50}' + " " * (MAX_REPLY_HEADER - 12)
    assert relayed(header, b"x" * 10, 10) == (header, b"x" * 10)
    assert oversize(b"{}", b"x" * 10, 10) == ""


@pytest.mark.parametrize(
    ("header", "payload", "reason"),
    [
        (" " * (MAX_REPLY_HEADER + 1), b"", "oversize"),
        ("\x01" * MAX_REPLY_HEADER + " ", b"", "oversize"),
        ("ä" * (MAX_REPLY_HEADER // 2 + 1), b"", "oversize"),  # fewer characters than bytes
        ("{}", b"x" * 11, "oversize"),
        ('{"a": "\ud800"}', b"", "malformed"),
    ],
    ids=["header", "control", "wide", "payload", "surrogate"],
)
def test_what_does_not_fit_is_that_site_s_failure(header: str, payload: bytes, reason: str) -> None:
    assert failure_of(relayed(header, payload, 10)) == ["refused", reason]


@pytest.mark.parametrize(("header", "payload"), [(None, b""), (7, b""), ("{}", "x"), ("{}", None)])
def test_what_is_no_answer_is_none(header: Any, payload: Any) -> None:
    assert relayed(header, payload, 10) is None


@pytest.mark.parametrize("letter", ["\x01", '"', "ä", "\u2028", "\N{GRINNING FACE}"], ids=ascii)
def test_whatever_is_passed_on_fits_the_connection_of_all_sites(letter: str) -> None:
    header = letter * (MAX_REPLY_HEADER // len(letter.encode()))
    assert relayed(header, b"", 0) == (header, b"")
    assert len(header_text({"is": "reply", "site": "s" * 100, "header": header})) < MAX_HEADER_BYTES


@given(st.one_of(st.none(), st.integers(), st.booleans(), st.text(), st.floats()))
def test_a_limit_that_is_none_is_that_of_the_connection(most: Any) -> None:
    assert 0 <= max_payload_of({"reply_bytes": most}) <= MAX_PAYLOAD_BYTES
    assert max_payload_of({}) == MAX_PAYLOAD_BYTES
    assert max_payload_of({"reply_bytes": 7}) == 7


def test_an_answer_as_large_as_may_be_ends_no_segment(tmp_path: Path) -> None:
    """Of control characters only, of which each takes six bytes in the header around it."""
    folder = private_directory()
    log = MessageLog(tmp_path / "ingress.jsonl")
    dispatcher = TaskDispatcher(Listener(folder / "link"), log, Clock())
    job = Job(folder / "link", ("a", "b"), lambda *arguments: None)
    until(lambda: dispatcher.segment == 1, "the segment opens")
    passed = relayed("\x01" * MAX_REPLY_HEADER, b"", 0)
    assert passed is not None
    with TaskBatch(dispatcher) as batch:
        task = batch.ask({"what": "evaluate"}, b"", ["a", "b"])
        job.reply_text(task, "a", *passed)
        job.reply(task, "b", {"fine": 1})
        events = [batch.next(20), batch.next(20)]
    assert [event.site for event in events if event is not None] == ["a", "b"]
    assert events[0] is not None
    assert events[0].header["failure"][:2] == ["refused", "malformed"]
    assert dispatcher.segment == 1
    job.die()
    close(dispatcher)
    folder.rmdir()
