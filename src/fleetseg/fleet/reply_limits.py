"""Size limits on a site's reply, checked before replies of several sites share a connection.

The process that relays for all sites has one connection for all of them, and a message too large
for it would end the segment for every site. So a vehicle does not send a reply that is too large,
and one that arrives anyway is replaced by a failure of that site.
"""

from __future__ import annotations

from typing import Any

from fleetseg.failures import failure_header
from fleetseg.fleet.sockets import MAX_PAYLOAD_BYTES, MAX_REPLY_HEADER, header_text

REPLY_BYTES = "reply_bytes"
"""The field of a request with the largest size of a reply's payload, in bytes."""


def oversize(text: bytes, payload: bytes, max_payload: int) -> str:
    """Return which part of a reply is too large; empty if it fits."""
    for what, size, most in (
        ("a header", len(text), MAX_REPLY_HEADER),
        ("an answer", len(payload), max_payload),
    ):
        if size > most:
            return f"{what} of {size} bytes, above the limit of {most}"
    return ""


def max_payload_of(request: Any) -> int:
    """Return the largest payload, in bytes, of the reply to a request."""
    most = request.get(REPLY_BYTES)
    return min(most, MAX_PAYLOAD_BYTES) if type(most) is int and most >= 0 else MAX_PAYLOAD_BYTES


def relayed(header: object, payload: object, max_payload: int) -> tuple[str, bytes] | None:
    """Return what to pass on of a site's message; None if it is not a reply at all."""
    if not isinstance(header, str) or not isinstance(payload, bytes):
        return None
    try:
        text = header.encode()
    except UnicodeError:
        return _refused("malformed", "a header that is not in UTF-8")
    if too_large := oversize(text, payload, max_payload):
        return _refused("oversize", too_large)
    return header, payload


def _refused(reason: str, detail: str) -> tuple[str, bytes]:
    return header_text(failure_header("refused", reason, detail)).decode(), b""
