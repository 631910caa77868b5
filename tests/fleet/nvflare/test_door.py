"""Whose message it is says the connection's certificate, for every kind of message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import ReservedKey, ServerCommandNames
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import NotAuthenticated
from nvflare.apis.shareable import Shareable
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, StreamHeaderKey
from nvflare.private.defs import CellChannel, CellChannelTopic, CellMessageHeaderKeys

from fleetseg.fleet.nvflare import guard
from fleetseg.fleet.nvflare.controller import FleetController
from fleetseg.fleet.nvflare.door import Door
from fleetseg.fleet.nvflare.guard import DuplicateKitGuard
from fleetseg.fleet.nvflare.names import BEAT, TASK

KINDS = {
    "registration": (CellChannel.SERVER_MAIN, CellChannelTopic.Register, False),
    "challenge": (CellChannel.SERVER_MAIN, CellChannelTopic.Challenge, False),
    "heartbeat": (CellChannel.SERVER_MAIN, CellChannelTopic.HEART_BEAT, False),
    "goodbye": (CellChannel.SERVER_MAIN, CellChannelTopic.Quit, False),
    "failed job": (CellChannel.SERVER_MAIN, CellChannelTopic.REPORT_JOB_FAILURE, False),
    "poll": (CellChannel.SERVER_COMMAND, ServerCommandNames.GET_TASK, True),
    "reply": (CellChannel.SERVER_COMMAND, ServerCommandNames.SUBMIT_UPDATE, True),
    "beat": (CellChannel.AUX_COMMUNICATION, BEAT, True),
}
"""Channel, topic and whether it is streamed, of all that a vehicle sends."""
each_kind = pytest.mark.parametrize("kind", KINDS)


def message(
    kind: tuple[str, str, bool],
    certificate: str = "car-2",
    *,
    origin: str = "car-2.job",
    name: str | None = "car-2",
    payload: Any = None,
) -> Message:
    channel, topic, streamed = kind
    headers = {MessageHeaderKey.ORIGIN: origin}
    keys: Any = StreamHeaderKey if streamed else MessageHeaderKey
    headers |= {keys.CHANNEL: channel, keys.TOPIC: topic}
    if streamed:
        headers |= {MessageHeaderKey.CHANNEL: STREAM_CHANNEL, MessageHeaderKey.TOPIC: "data"}
    if name is not None:
        headers[CellMessageHeaderKeys.CLIENT_NAME] = name
    sent = Message(headers, payload)
    sent.set_prop(MessagePropKey.COMMON_NAME, certificate)
    return sent


def is_refused(sent: Message) -> bool:
    answer = Door().refusal(sent)
    assert answer is None or answer.get_header(MessageHeaderKey.RETURN_CODE) == (
        ReturnCode.UNAUTHENTICATED
    )
    return answer is not None


@each_kind
def test_a_vehicle_s_own_messages_pass(kind: str) -> None:
    assert not is_refused(message(KINDS[kind]))
    assert not is_refused(message(KINDS[kind], origin="car-2", name=None))


@each_kind
def test_no_message_passes_in_another_one_s_name(kind: str) -> None:
    assert is_refused(message(KINDS[kind], name="car-1"))
    assert is_refused(message(KINDS[kind], origin="car-1"))
    assert is_refused(message(KINDS[kind], origin="car-1.job", name="car-1"))
    assert is_refused(message(KINDS[kind], origin="server", name="server"))


@pytest.mark.parametrize(
    "order",
    [
        (CellChannel.SERVER_COMMAND, "abort", True),
        (CellChannel.SERVER_COMMAND, "abort", False),
        (CellChannel.SERVER_COMMAND, ServerCommandNames.HANDLE_DEAD_JOB, True),
        (CellChannel.SERVER_PARENT_LISTENER, ServerCommandNames.GET_CLIENTS, False),
        ("_net_manager", "stop", False),
    ],
)
def test_a_vehicle_gives_no_orders(order: tuple[str, str, bool]) -> None:
    assert is_refused(message(order))
    assert not is_refused(message(order, "N/A", origin="server.job", name="server_job"))


def test_the_operator_and_this_machine_pass() -> None:
    for certificate in ("operator@fleet.local", "N/A", ""):
        assert not is_refused(message(KINDS["heartbeat"], certificate, origin="_admin_1", name="a"))


def test_a_beat_counts_for_its_sender_whatever_it_says_of_itself() -> None:
    controller, sent = FleetController(), list[Any]()
    controller._send = sent.append  # type: ignore[method-assign]
    beat = Shareable()
    beat[TASK] = "train-1"
    beat.set_peer_props({ReservedKey.IDENTITY_NAME: "car-1"})
    controller._beat(message(KINDS["beat"], payload=beat))
    assert sent == [{"is": "beat", "site": "car-2", "busy": "train-1", "progress": ""}]


Arrive = Callable[[str, str, str, str], None]


@pytest.fixture
def arrive(monkeypatch: pytest.MonkeyPatch) -> Arrive:
    """Have a message come to a server: (event, certificate, the name it claims, its place)."""
    standing = DuplicateKitGuard()
    monkeypatch.setattr(standing, "log_error", lambda fl_ctx, text: None)

    def come(event: str, certificate: str, claimed: str, place: str) -> None:
        came = message(KINDS["heartbeat"], certificate, origin=certificate, name=None)
        assert standing._door.refusal(came) is None
        peer, fl_ctx = FLContext(), FLContext()
        peer.set_public_props({ReservedKey.IDENTITY_NAME: claimed, guard._PLACE: place})
        fl_ctx.set_peer_context(peer)
        standing.handle_event(event, fl_ctx)

    return come


def test_a_second_place_of_one_kit_is_refused(arrive: Arrive) -> None:
    arrive(EventType.CLIENT_REGISTER_RECEIVED, "car-1", "car-1", "here")
    arrive(EventType.CLIENT_REGISTER_RECEIVED, "car-1", "car-1", "here")
    for claimed in ("car-1", "car-3"):
        with pytest.raises(NotAuthenticated, match="car-1 is in use"):
            arrive(EventType.CLIENT_REGISTER_RECEIVED, "car-1", claimed, "there")


def test_nobody_takes_another_one_s_place(arrive: Arrive) -> None:
    arrive(EventType.CLIENT_REGISTER_RECEIVED, "car-2", "car-1", "there")
    arrive(EventType.CLIENT_REGISTER_RECEIVED, "car-1", "car-1", "here")


def test_nobody_signs_another_one_off(arrive: Arrive) -> None:
    arrive(EventType.CLIENT_REGISTER_RECEIVED, "car-1", "car-1", "here")
    arrive(EventType.CLIENT_QUIT, "car-2", "car-1", "here")
    with pytest.raises(NotAuthenticated):
        arrive(EventType.CLIENT_REGISTER_RECEIVED, "car-1", "car-1", "there")
