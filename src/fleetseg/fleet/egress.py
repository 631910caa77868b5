"""The only way out of a vehicle: messages are logged before they leave, and failures are codes.

The trainer's replies and the relay's own failures pass through here, and both write to one log.
Error texts stay on the vehicle, because they may name files: only a code from `CODES` leaves, with
that code's text. A refusal concerns what the server sent, so its text may leave, but with anything
that looks like a path removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleetseg.failures import failure_header, parse_failure
from fleetseg.fleet.message_log import MessageLog

LIST = Path("logs") / "egress.jsonl"
"""The path of the message log in the vehicle's own folder."""
Header = dict[str, Any]

_ITS_LOG = "; the vehicle's own log says more"
_BEGINS_ANEW = "it has lost its state; it starts afresh when it is next asked"
CODES = {
    "DataError": "its data cannot be used" + _ITS_LOG,
    "BadSample": "one of its samples cannot be used" + _ITS_LOG,
    "LeakError": "its training and test data share frames" + _ITS_LOG,
    "ConfigError": "its data or settings do not fit this run" + _ITS_LOG,
    "ModelError": "the network cannot be built or used there" + _ITS_LOG,
    "EngineError": "something on its machine does not work" + _ITS_LOG,
    "OutOfMemory": "out of memory" + _ITS_LOG,
    "MissingExtra": "a package that this run needs is not installed there" + _ITS_LOG,
    "CheckpointError": "its state cannot be read or written" + _ITS_LOG,
    "DamagedFile": "its state is damaged" + _ITS_LOG,
    "StateMissing": _BEGINS_ANEW,
    "no-state": _BEGINS_ANEW,
    "data": "its samples cannot be used" + _ITS_LOG,
    "untrained": "it has no model of its own: it never took part",
    "unasked": "the experiment does not ask for this",
    "non-finite": "every step gave NaN or infinity; a lower training.lr may help",
    "no-labels": "no labelled pixel in any batch",
    "out-of-memory": "out of memory; use a smaller training.batch_size or training.crop",
    "disk": "its message log cannot be written: the disk may be full",
    "no-room": "the release cannot be stored: the disk may be full" + _ITS_LOG,
    "trainer-died": "its trainer died and is being restarted",
    "aborted": "the engine's job ended",
    "error": "an unexpected error" + _ITS_LOG,
}
"""Codes of a vehicle's own failures, each with the text that may leave with it."""
_ASKED_FOR = re.compile(r"[Tt]ried to allocate (\d[\d.,]* ?[A-Za-z]{1,5})\b")
_PATHS = re.compile(r"""(?<![\w>/:~])(?:~?/|[A-Za-z]:\\)[^\s'",;)]+""")


class Egress:
    """Logs outgoing messages and returns what may leave."""

    def __init__(self, folder: Path, log: Callable[[str], None] = lambda text: None) -> None:
        self.message_log, self._log = MessageLog(folder / LIST), log

    def passed(
        self, kind: str, vehicle: str, header: Header, payload: bytes
    ) -> tuple[Header, bytes]:
        """Log a reply and return it in the form in which it may leave.

        If it cannot be logged, only a failure code that says so leaves.
        """
        if parse_failure(header) is not None:
            kind, header, payload = "failure", coded(header), b""
        try:
            self.message_log.append(kind, vehicle, header, payload)
        except OSError as error:
            path = self.message_log.path
            self._log(f"{path}: {error.strerror or error}; nothing is sent until it can be")
            return failure_header("lost", "disk", CODES["disk"]), b""
        return header, payload


def coded(header: Header) -> Header:
    """Replace a failure's text by that of its code.

    >>> coded(failure_header("abstained", "DataError", "/home/me/a.png is broken"))["failure"][2]
    "its data cannot be used; the vehicle's own log says more"
    """
    fields = parse_failure(header)
    assert fields is not None
    kind, reason, detail = fields
    if kind == "refused":
        return failure_header(kind, reason, _PATHS.sub("(path)", detail))
    code = reason if reason in CODES else "error"
    text = CODES[code]
    if code == "out-of-memory" and (amount := _ASKED_FOR.search(detail)):
        text = f"{text} (tried to allocate {amount[1]})"
    return failure_header(kind, code, text)
