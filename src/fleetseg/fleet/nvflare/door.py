"""The server's door: who sent a message is whose certificate its connection was opened with.

NVFlare binds a connection to its certificate and a token to a name, and then hands a message on
with fields of the sender's own beside them ("peer context", "origin"). Here all of them have to be
the certificate's, for every message that enters the server, also for those on their way to a job;
what reads a name behind the door reads the sender's. And a vehicle gives no orders: NVFlare would
take "abort", "stop" and the list of everybody's tokens from whoever asks in a job's own words.

Vehicles have to be connected directly: behind a relay, the certificate would be the relay's.
"""

from __future__ import annotations

import threading
from typing import Any

from nvflare.apis.fl_constant import ServerCommandNames
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.private.defs import CellChannel, CellMessageHeaderKeys

_UNNAMED = ("", "N/A")  # of a connection inside this machine
_NOT_FOR_VEHICLES = (CellChannel.SERVER_PARENT_LISTENER, "_net_manager")
_ASKED_BY_VEHICLES = (ServerCommandNames.GET_TASK, ServerCommandNames.SUBMIT_UPDATE)


class Door:
    """A filter of incoming messages; `sender` is whose message this thread is at work on."""

    def __init__(self) -> None:
        self._here = threading.local()

    def install(self, cell: Any) -> None:
        """Stand behind NVFlare's own check of tokens, in the server's process."""
        cell.core_cell.add_incoming_filter(channel="*", topic="*", cb=self.refusal)

    @property
    def sender(self) -> str:
        """The name in the certificate; empty inside this machine and for the operator."""
        return str(getattr(self._here, "sender", ""))

    def refusal(self, message: Any) -> Any:
        """Answer a message that is not its sender's own, or that no vehicle may send; else None."""
        name = str(message.get_prop(MessagePropKey.COMMON_NAME) or "")
        vehicle = "" if name in _UNNAMED or "@" in name else name  # the operator has an address
        self._here.sender = vehicle
        wrong = why_refused(message, vehicle) if vehicle else ""
        return make_reply(ReturnCode.UNAUTHENTICATED, wrong) if wrong else None


def why_refused(message: Any, vehicle: str) -> str:
    """Say what is wrong with a message that came by a vehicle's connection; empty if nothing is."""
    origin = str(message.get_header(MessageHeaderKey.ORIGIN, "")).partition(".")[0]
    claimed = message.get_header(CellMessageHeaderKeys.CLIENT_NAME, vehicle)
    if origin != vehicle or claimed != vehicle:
        return f"a message in another one's name came by the connection of {vehicle}"
    # Of a message that is streamed, these name the stream, and its own are beside them.
    for keys in (MessageHeaderKey, StreamHeaderKey):
        channel, topic = (message.get_header(key, "") for key in (keys.CHANNEL, keys.TOPIC))
        orders = channel == CellChannel.SERVER_COMMAND and topic not in _ASKED_BY_VEHICLES
        if orders or channel in _NOT_FOR_VEHICLES:
            return f"{vehicle} may not send '{topic}' on '{channel}'"
    return ""


def sender_of(message: Any) -> str:
    """Return who sent a message that has passed the door, in a job's process."""
    return str(message.get_header(CellMessageHeaderKeys.CLIENT_NAME, ""))
