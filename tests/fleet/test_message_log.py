"""The lists of messages: one line each, the same digest on both sides, readable after a crash."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetseg.fleet.audit import verify
from fleetseg.fleet.message_log import MessageLog, header_bytes, message_digest, read_message_log

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
headers = st.dictionaries(st.text(max_size=10), json_values, max_size=5)


def test_a_message_is_one_line(tmp_path: Path) -> None:
    message_log = MessageLog(tmp_path / "logs" / "egress.jsonl")
    header = {"update": 3, "b": [1, 2]}
    message_log.append("train", "car-1", header, b"payload")
    message_log.append("failure", "käfer\n2", {"failure": ["late", "x", ""]}, b"")
    first, second = read_message_log(message_log.path)
    text = json.dumps(header).encode()
    assert {k: v for k, v in first.items() if k != "time"} == {
        "kind": "train",
        "vehicle": "car-1",
        "fields": ["b", "update"],
        "bytes": len(text) + 7,
        "sha256": hashlib.sha256(text + b"payload").hexdigest(),
        "previous": "0" * 64,
    }
    whole = message_log.path.read_bytes().splitlines()[0]
    assert second["previous"] == hashlib.sha256(whole).hexdigest()
    assert second["vehicle"] == "käfer\n2"
    assert first["time"] <= second["time"]
    assert len(message_log.path.read_text().splitlines()) == 2


def test_two_starts_write_to_one_list(tmp_path: Path) -> None:
    for k in range(2):
        MessageLog(tmp_path / "egress.jsonl").append("hello", f"car-{k}", {}, b"")
    assert [line["vehicle"] for line in read_message_log(tmp_path / "egress.jsonl")] == [
        "car-0",
        "car-1",
    ]


def test_a_list_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_message_log(tmp_path / "none.jsonl") == []


def test_the_last_line_of_a_crash_is_left_out(tmp_path: Path) -> None:
    message_log = MessageLog(tmp_path / "egress.jsonl")
    message_log.append("hello", "car-1", {}, b"")
    whole = message_log.path.read_text()
    for cut in range(len(whole) - 1):
        message_log.path.write_text(whole + whole[:cut])
        assert len(read_message_log(message_log.path)) == 1


def test_a_cut_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    message_log = MessageLog(tmp_path / "egress.jsonl")
    message_log.append("hello", "car-1", {}, b"")
    with open(message_log.path, "a") as file:
        file.write('{"time": 17')  # the disk was full here
    message_log.append("train", "car-1", {"update": 1}, b"x")
    assert [line["kind"] for line in read_message_log(message_log.path)] == ["hello", "train"]


def test_a_line_is_on_the_disk_before_the_message_goes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    message_log = MessageLog(tmp_path / "egress.jsonl")
    size = lambda handle: synced.append(os.fstat(handle).st_size)  # noqa: E731
    monkeypatch.setattr(os, "fsync", size)
    message_log.append("hello", "car-1", {}, b"")
    assert synced[0] == message_log.path.stat().st_size

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        message_log.append("train", "car-1", {}, b"")


def test_a_full_list_is_set_aside_and_nothing_is_lost(tmp_path: Path) -> None:
    message_log = MessageLog(tmp_path / "egress.jsonl", max_bytes=700)
    for k in range(9):
        message_log.append("train", f"car-{k}", {}, b"")
    names = [f"egress-{k:06d}.jsonl" for k in (1, 2)]
    assert sorted(path.name for path in tmp_path.glob("*.jsonl")) == [*names, "egress.jsonl"]
    told = [line["vehicle"] for line in read_message_log(message_log.path)]
    assert told == [f"car-{k}" for k in range(9)]


def test_many_processes_write_to_one_list(tmp_path: Path) -> None:
    """Each with a MessageLog of its own, as a trainer and the relay beside it have."""
    path = tmp_path / "egress.jsonl"

    def write(k: int) -> None:
        for _ in range(10):
            MessageLog(path, max_bytes=2000).append("train", f"car-{k}", {}, b"")

    threads = [threading.Thread(target=write, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_message_log(path)) == 40
    assert verify(path).broken == ""


def test_a_header_of_anybody_s_is_listed_in_bounds(tmp_path: Path) -> None:
    message_log = MessageLog(tmp_path / "ingress.jsonl")
    message_log.append("late", "car-1", {"x" * 10_000 + str(k): k for k in range(1000)}, b"")
    assert message_log.path.stat().st_size < 10_000


def test_a_folder_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    message_log = MessageLog(tmp_path / "egress.jsonl")
    message_log.path.mkdir()
    with pytest.raises(OSError, match="egress"):
        message_log.append("hello", "car-1", {}, b"")


@given(headers, st.binary(max_size=50))
def test_the_digest_is_the_same_after_the_way(header: dict[str, Any], payload: bytes) -> None:
    """Both sides compute it of what they hold: one before, one after the header was text."""
    arrived = json.loads(json.dumps(header))
    assert message_digest(arrived, payload) == message_digest(header, payload)
    assert header_bytes(arrived) == header_bytes(header) == len(json.dumps(header).encode())


def test_the_digest_sees_header_and_payload() -> None:
    seen = {message_digest(h, p) for h in ({}, {"a": 1}, {"a": 2}) for p in (b"", b"x", b"y")}
    assert len(seen) == 9
