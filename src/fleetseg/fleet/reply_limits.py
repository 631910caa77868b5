"""How large a site's answer may be, where its bytes are still its own.

Behind the process that relays for all sites there is one connection for all of them, and what does
not fit it would end the segment for everybody. So a vehicle does not send what is too large, and
what comes in spite of it is replaced by that site's failure.
"""

from __future__ import annotations

from typing import Any

from fleetseg.failures import failure_header
from fleetseg.fleet.sockets import MAX_PAYLOAD_BYTES, MAX_REPLY_HEADER, header_text

REPLY_BYTES = "reply_bytes"
"""The field of a request that says how many bytes an answer may have beside its header."""


def oversize(text: bytes, payload: bytes, max_payload: int) -> str:
    """Say what of an answer is too large; empty where it fits."""
    for what, size, most in (
        ("a header", len(text), MAX_REPLY_HEADER),
        ("an answer", len(payload), max_payload),
    ):
        if size > most:
            return f"{what} of {size} bytes, where at most {most} are taken"
    return ""


def max_payload_of(request: Any) -> int:
    """Return how many bytes the answer to a request may have."""
    most = request.get(REPLY_BYTES)
    return min(most, MAX_PAYLOAD_BYTES) if type(most) is int and most >= 0 else MAX_PAYLOAD_BYTES


def relayed(header: object, payload: object, max_payload: int) -> tuple[str, bytes] | None:
    """Return what to pass on of what one site has sent; None where that is no answer at all."""
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
