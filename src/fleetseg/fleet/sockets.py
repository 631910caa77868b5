"""Messages between processes on one machine: a JSON header and bytes over a unix socket.

This connects NVFlare's processes with ours: the server's controller with the aggregating process,
and a vehicle's executor with its trainer. Both ends belong to one user, and the socket is in a
folder that only this user can enter.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import socket
import struct
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleetseg.errors import ConfigError
from fleetseg.hosts import temporary_folder
from fleetseg.strict_json import BadJson, read_table

Header = dict[str, Any]

_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._/+@~-]{0,60}")
_SIZES = struct.Struct("<IQ")  # bytes of the header, bytes of the payload
MAX_HEADER_BYTES = 1 << 24
MAX_REPLY_HEADER = 1 << 21  # bytes of a header inside a header, where each may take six
MAX_PAYLOAD_BYTES = 1 << 32


class ConnectionLost(ConnectionError):
    """The other end is gone, or it sent something that is not a message."""


class Connection:
    """One end of a connection; many threads may send, one may receive."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, header: Mapping[str, Any], payload: bytes | memoryview = b"") -> None:
        """Send one message, or raise ConnectionLost."""
        text = header_text(header)
        try:
            with self._sending:
                self._connection.sendall(_SIZES.pack(len(text), len(payload)) + text)
                if payload:
                    self._connection.sendall(payload)
        except OSError as error:
            raise ConnectionLost(str(error)) from None

    def receive(self, timeout_s: float | None = None) -> tuple[Header, bytes] | None:
        """Wait for a message; returns None if none has started to arrive in time.

        Raises:
            ConnectionLost: at the end of the stream.
        """
        message = self.receive_text(timeout_s)
        if message is None:
            return None
        text, payload = message
        try:
            return read_table(text, max_bytes=MAX_HEADER_BYTES), payload
        except BadJson as bad:
            raise ConnectionLost(f"not a message: {bad}") from None

    def receive_text(self, timeout_s: float | None = None) -> tuple[bytes, bytes] | None:
        """Wait for a message and return its header unparsed, for relays."""
        if timeout_s is not None and not self._arrives(timeout_s):
            return None
        header_bytes, payload_bytes = _SIZES.unpack(self._exactly(_SIZES.size))
        if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
            raise ConnectionLost("not a message")
        text = bytes(self._exactly(header_bytes))
        return text, bytes(self._exactly(payload_bytes))

    def close(self) -> None:
        """Close the connection; a waiting `receive` ends."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _arrives(self, timeout_s: float) -> bool:
        # Not by a time-out of the socket, which would interrupt another thread's send.
        try:
            poll = select.poll()
            poll.register(self._connection, select.POLLIN)
            return bool(poll.poll(timeout_s * 1000))
        except (OSError, ValueError) as error:  # closed by another thread
            raise ConnectionLost(str(error)) from None

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            try:
                count = self._connection.recv_into(view[done:])
            except OSError as error:
                raise ConnectionLost(str(error)) from None
            if count == 0:
                raise ConnectionLost("closed in the middle of a message")
            done += count
        return data


def header_text(header: Mapping[str, Any]) -> bytes:
    """Encode a header as it is sent."""
    return json.dumps(header).encode()


class Listener:
    """A unix socket that others connect to; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        path.chmod(0o600)
        self._socket.listen(8)

    def __enter__(self) -> Listener:
        """Return the listener itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the listener."""
        self.close()

    def accept(self, timeout_s: float | None = None) -> Connection | None:
        """Wait for the next connection; returns None on time-out, or if the listener is closed."""
        try:
            self._socket.settimeout(timeout_s)
            connection, _ = self._socket.accept()
        except (TimeoutError, OSError):
            return None
        connection.settimeout(None)
        return Connection(connection)

    def close(self) -> None:
        """Stop accepting connections."""
        self._socket.close()
        self.path.unlink(missing_ok=True)


def connect(path: str | Path) -> Connection:
    """Connect to a `Listener`, or raise ConnectionLost."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise ConnectionLost(f"{path}: {error.strerror or error}") from None
    return Connection(connection)


def private_directory() -> Path:
    """Make a new folder that only this user can enter, with a short and plain path.

    A socket's path is limited to about 100 bytes, and a path that is passed on in text should not
    need quotes.

    Raises:
        ConfigError: there is no suitable place.
    """
    bases = [os.environ.get("XDG_RUNTIME_DIR", ""), str(temporary_folder()), "/tmp"]  # noqa: S108
    for base in bases:
        if _PLAIN_PATH.fullmatch(base) and os.access(base, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix="fleetseg-", dir=base))
    raise ConfigError(
        "no folder for sockets",
        got=bases[1],
        expected="at most 60 letters, digits and ._/+@~-, and leave to write",
        cure="Set TMPDIR to such a folder",
    )
