"""Authenticates incoming messages: the sender is the owner of the connection's certificate.

NVFlare binds a connection to its certificate and a token to a name, but then passes on messages
with fields that the sender chose itself ("peer context", "origin"). Here all of these must match
the certificate, for every message that enters the server, including those on their way to a job, so
that later code can trust the names it reads. A vehicle may also give no orders: NVFlare would
accept "abort" and "stop", and hand out the list of all tokens, to anyone who uses a job's commands.

Vehicles must connect directly: behind a relay, the certificate would be the relay's.
"""

from __future__ import annotations

import threading
from typing import Any

from nvflare.apis.fl_constant import ServerCommandNames
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.private.defs import CellChannel, CellMessageHeaderKeys

_UNNAMED = ("", "N/A")  # names of connections inside this machine
_NOT_FOR_VEHICLES = (CellChannel.SERVER_PARENT_LISTENER, "_net_manager")
_ASKED_BY_VEHICLES = (ServerCommandNames.GET_TASK, ServerCommandNames.SUBMIT_UPDATE)


class Door:
    """A filter of incoming messages; `sender` is the sender of the message this thread handles."""

    def __init__(self) -> None:
        self._here = threading.local()

    def install(self, cell: Any) -> None:
        """Install the filter after NVFlare's own check of tokens, in the server's process."""
        cell.core_cell.add_incoming_filter(channel="*", topic="*", cb=self.refusal)

    @property
    def sender(self) -> str:
        """The name in the certificate; empty for connections on this machine and the operator."""
        return str(getattr(self._here, "sender", ""))

    def refusal(self, message: Any) -> Any:
        """Return a refusal of a message with a false name or not allowed to vehicles; else None."""
        name = str(message.get_prop(MessagePropKey.COMMON_NAME) or "")
        vehicle = "" if name in _UNNAMED or "@" in name else name  # the operator has an address
        self._here.sender = vehicle
        wrong = why_refused(message, vehicle) if vehicle else ""
        return make_reply(ReturnCode.UNAUTHENTICATED, wrong) if wrong else None


def why_refused(message: Any, vehicle: str) -> str:
    """Return what is wrong with a message from a vehicle's connection; empty if nothing is."""
    origin = str(message.get_header(MessageHeaderKey.ORIGIN, "")).partition(".")[0]
    claimed = message.get_header(CellMessageHeaderKeys.CLIENT_NAME, vehicle)
    if origin != vehicle or claimed != vehicle:
        return f"a message in another one's name came over the connection of {vehicle}"
    # In a streamed message, the first keys describe the stream and the second the message itself.
    for keys in (MessageHeaderKey, StreamHeaderKey):
        channel, topic = (message.get_header(key, "") for key in (keys.CHANNEL, keys.TOPIC))
        orders = channel == CellChannel.SERVER_COMMAND and topic not in _ASKED_BY_VEHICLES
        if orders or channel in _NOT_FOR_VEHICLES:
            return f"{vehicle} may not send '{topic}' on '{channel}'"
    return ""


def sender_of(message: Any) -> str:
    """Return the sender of a message that has passed the filter, in a job's process."""
    return str(message.get_header(CellMessageHeaderKeys.CLIENT_NAME, ""))
