"""The form of a failure in the header of a reply, for every process that answers.

The processes that relay between a server and its vehicles also report failures of their own and
must stay light; `federation.replies` writes and reads all other replies.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

FailureKind = Literal["late", "refused", "lost", "abstained"]
MAX_DETAIL = 500
_KEY = "failure"


def failure_header(kind: FailureKind, reason: str, detail: str = "") -> dict[str, Any]:
    """Write a failure; `reason` is a short stable code, `detail` a message for people.

    >>> failure_header("lost", "trainer-died")
    {'failure': ['lost', 'trainer-died', '']}
    """
    return {_KEY: [kind, reason, detail[:MAX_DETAIL]]}


def is_failure(header: Mapping[str, Any]) -> bool:
    """Say whether a reply is a failure, readable or not."""
    return header.get(_KEY) is not None


def parse_failure(header: Mapping[str, Any]) -> tuple[FailureKind, Any, Any] | None:
    """Read a failure that `failure_header` wrote; None if the reply is not a failure.

    Raises:
        ValueError: a failure that cannot be read.
    """
    fields = header.get(_KEY)
    if fields is None:
        return None
    if not isinstance(fields, list) or len(fields) != 3 or fields[0] not in get_args(FailureKind):
        raise ValueError("not a kind, a reason and a detail")
    kind, reason, detail = fields
    return kind, reason, detail
