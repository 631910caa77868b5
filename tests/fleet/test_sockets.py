"""Messages over a unix socket: what goes in comes out, and all else is a lost connection."""

from __future__ import annotations

import json
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fleetseg.fleet import sockets as link_module
from fleetseg.fleet.sockets import (
    Connection,
    ConnectionLost,
    Listener,
    connect,
    private_directory,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | FINITE
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)
headers = st.dictionaries(st.text(max_size=10), json_values, max_size=5)


@pytest.fixture
def pair() -> Iterator[tuple[Connection, Connection]]:
    one, two = (Connection(end) for end in socket.socketpair())
    yield one, two
    one.close()
    two.close()


def frame(header: bytes, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", len(header), len(payload)) + header + payload


def received(stream: bytes) -> list[tuple[dict[str, Any], bytes]]:
    """Everything that a stream holds, up to its end; raises ConnectionLost if it ends badly."""
    near, far = socket.socketpair()
    connection = Connection(far)
    writer = threading.Thread(target=lambda: (near.sendall(stream), near.close()), daemon=True)
    writer.start()
    messages = []
    try:
        while True:
            message = connection.receive()
            assert message is not None
            messages.append(message)
    except ConnectionLost as lost:
        if messages and "closed" in str(lost):
            return messages
        raise
    finally:
        writer.join()
        connection.close()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(headers, st.binary(max_size=3000)), min_size=1, max_size=4))
def test_messages_come_out_as_they_went_in(messages: list[tuple[dict[str, Any], bytes]]) -> None:
    one, two = (Connection(end) for end in socket.socketpair())
    for header, payload in messages:
        one.send(header, payload)
        assert two.receive() == (header, payload)
        two.send(header, memoryview(payload))
        assert one.receive(timeout_s=5) == (header, payload)
    one.close()
    with pytest.raises(ConnectionLost):
        two.receive()
    two.close()


@settings(max_examples=100, deadline=None)
@given(headers, st.binary(max_size=200), st.data())
def test_a_stream_cut_anywhere_is_a_lost_connection(
    header: dict[str, Any], payload: bytes, data: st.DataObject
) -> None:
    whole = frame(json.dumps(header).encode(), payload)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ConnectionLost, match="closed"):
        received(whole[:cut])


@pytest.mark.parametrize(
    "sizes",
    [
        (link_module.MAX_HEADER_BYTES + 1, 0),
        (2, link_module.MAX_PAYLOAD_BYTES + 1),
        (2**32 - 1, 2**64 - 1),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_taken(sizes: tuple[int, int]) -> None:
    with pytest.raises(ConnectionLost, match="not a message"):
        received(struct.pack("<IQ", *sizes) + b"{}")


@pytest.mark.parametrize(
    "header", [b"", b"{", b"\xff\xfe", b"nonsense", b"[" * 100_000], ids=lambda h: repr(h[:8])
)
def test_a_header_that_is_no_json_is_a_lost_connection(header: bytes) -> None:
    with pytest.raises(ConnectionLost):
        received(frame(header))


@pytest.mark.parametrize("header", [b"[]", b"7", b"null", b'"is"'])
def test_a_header_that_is_no_table_is_a_lost_connection(header: bytes) -> None:
    try:
        messages = received(frame(header))
    except ConnectionLost:
        messages = []
    assert messages == []


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
@example(b"\0" * 12)
def test_garbage_is_a_lost_connection(garbage: bytes) -> None:
    with pytest.raises(ConnectionLost):
        received(garbage)


def test_nothing_in_time_is_none_and_loses_nothing(pair: tuple[Connection, Connection]) -> None:
    one, two = pair
    assert two.receive(timeout_s=0) is None
    assert two.receive(timeout_s=0.01) is None
    one.send({"a": 1})
    assert two.receive(timeout_s=5) == ({"a": 1}, b"")


def test_a_message_that_has_begun_is_waited_for() -> None:
    near, far = socket.socketpair()
    connection = Connection(far)
    whole = frame(b'{"a": 1}', b"payload")
    near.sendall(whole[:5])
    later = threading.Timer(0.1, near.sendall, [whole[5:]])
    later.start()
    assert connection.receive(timeout_s=0.01) == ({"a": 1}, b"payload")
    later.join()
    near.close()
    connection.close()


def test_large_payloads_from_many_threads_do_not_mix(pair: tuple[Connection, Connection]) -> None:
    one, two = pair
    payloads = {k: bytes([k]) * (300_000 + k) for k in range(6)}
    senders = [
        threading.Thread(target=one.send, args=({"k": k}, payload), daemon=True)
        for k, payload in payloads.items()
    ]
    for sender in senders:
        sender.start()
    got = {}
    for _ in payloads:
        message = two.receive(timeout_s=10)
        assert message is not None
        got[message[0]["k"]] = message[1]
    assert got == payloads


def test_waiting_for_a_message_does_not_end_what_another_thread_sends(
    pair: tuple[Connection, Connection],
) -> None:
    one, two = pair
    payload = b"x" * 3_000_000
    lost: list[ConnectionLost] = []

    def send() -> None:
        try:
            one.send({}, payload)
        except ConnectionLost as error:
            lost.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    for _ in range(20):  # nobody reads yet, so the sender is held up meanwhile
        assert one.receive(timeout_s=0.005) is None
    message = two.receive()
    sender.join()
    assert lost == []
    assert message == ({}, payload)


def test_hanging_up_ends_a_receive_that_waits(pair: tuple[Connection, Connection]) -> None:
    one, _ = pair
    ended: list[Exception] = []

    def wait() -> None:
        try:
            one.receive()
        except ConnectionLost as lost:
            ended.append(lost)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    one.close()
    waiting.join(10)
    assert len(ended) == 1


@pytest.mark.parametrize("timeout_s", [None, 0.1])
def test_a_link_that_is_closed_is_lost_for_every_call(
    pair: tuple[Connection, Connection], timeout_s: float | None
) -> None:
    one, two = pair
    one.close()
    one.close()
    for lost in (one, two):
        with pytest.raises(ConnectionLost):
            lost.receive(timeout_s)
        with pytest.raises(ConnectionLost):
            lost.send({}, b"x" * 1_000_000)


# Doors


@pytest.fixture
def folder() -> Iterator[Path]:
    made = private_directory()
    yield made
    for path in made.iterdir():
        path.unlink()
    made.rmdir()


def test_a_listener_accepts_one_after_another(folder: Path) -> None:
    with Listener(folder / "socket") as listener:
        assert listener.accept(timeout_s=0) is None
        for k in range(3):
            caller = connect(listener.path)
            called = listener.accept(timeout_s=5)
            assert called is not None
            caller.send({"k": k})
            assert called.receive(timeout_s=5) == ({"k": k}, b"")
            called.close()
            caller.close()
    assert not (folder / "socket").exists()
    with pytest.raises(ConnectionLost, match="socket: No such file"):
        connect(folder / "socket")


def test_a_listener_takes_the_place_of_one_that_a_crash_left(folder: Path) -> None:
    left = Listener(folder / "socket")
    left._socket.close()
    with pytest.raises(ConnectionLost, match="refused"):
        connect(folder / "socket")
    with Listener(folder / "socket") as listener:
        caller = connect(listener.path)
        called = listener.accept(timeout_s=5)
        assert called is not None
        called.close()
        caller.close()


def test_a_closed_listener_accepts_nobody(folder: Path) -> None:
    listener = Listener(folder / "socket")
    listener.close()
    assert listener.accept(timeout_s=None) is None


def test_nobody_else_may_use_the_socket(folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    with Listener(folder / "socket"):
        assert stat.S_IMODE((folder / "socket").stat().st_mode) == 0o600


def test_the_folder_s_path_is_short_enough_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 80)
    deep.mkdir()
    for runtime in (str(deep), "", "/does/not/exist"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        made = private_directory()
        with Listener(made / "trainer"):
            pass
        made.rmdir()
    short = Path(private_directory())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    inside = private_directory()
    assert inside.parent == short
    inside.rmdir()
    short.rmdir()


def nested(depth: int) -> str:
    return '{"a": ' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize("depth", [40, 500, 960, 987, 5000, 100_000])
def test_a_header_that_is_nested_deep_is_a_lost_connection(depth: int) -> None:
    """Python reads lists in lists deeper than it can write them: not to be found out later."""
    with pytest.raises(ConnectionLost, match="deep"):
        received(frame(nested(depth).encode()))
    wide = json.dumps({"rows": [[1] * 50] * 50}).encode()
    assert received(frame(wide)) == [(json.loads(wide), b"")]


def test_a_header_that_is_passed_on_stays_as_it_is(pair: tuple[Connection, Connection]) -> None:
    """Who relays a message neither reads its header nor writes it anew."""
    one, two = pair
    for text in (b'{"a" : 1.50, "a": NaN}', nested(987).encode(), b"\xff"):
        one._connection.sendall(frame(text, b"payload"))
        assert two.receive_text(timeout_s=5) == (text, b"payload")
    assert two.receive_text(timeout_s=0) is None
