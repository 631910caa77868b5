"""Serve the live page to browsers on this machine, and to nobody else.

There are two paths: the page, and server-sent events that announce changes. Host names other than
the loopback's are refused: otherwise a page from elsewhere whose name resolves to this address (DNS
rebinding) could read it.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fleetseg.errors import ConfigError, FleetSegError
from fleetseg.watching.page import NONCE, LivePage

HOST = "127.0.0.1"
PORT = 8765
_LOOK_S = 0.5  # between two checks of the folder
_ALIVE_S = 15.0  # between two keep-alive comments, which reveal closed connections
_MOST_STREAMS = 32  # open pages; each has a thread


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, page: LivePage, port: int) -> None:
        self.page, self.over = page, threading.Event()
        self.streams = threading.BoundedSemaphore(_MOST_STREAMS)
        super().__init__((HOST, port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@contextmanager
def serving_page(page: LivePage, port: int = PORT) -> Iterator[str]:
    """Serve a page within the block; yields its address.

    Port 0 chooses any free port.

    Raises:
        ConfigError: the port cannot be opened.
    """
    try:
        server = _Server(page, port)
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be opened ({error.strerror})",
            where="--port",
            cure="Choose another one; --port 0 takes any that is free",
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="fleetseg-watch", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.port}/"
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fleetseg", ""
    timeout = 60  # seconds that a browser may keep an idle connection open

    def do_GET(self) -> None:
        """Answer with the page, with events, or with a refusal."""
        host = self.headers.get("Host", "")
        if host not in {f"{name}:{self.server.port}" for name in (HOST, "localhost")}:
            self._text(HTTPStatus.MISDIRECTED_REQUEST, "only as 127.0.0.1 or localhost")
        elif self.path == "/":
            self._page()
        elif self.path == "/events":
            self._events()
        else:
            self._text(HTTPStatus.NOT_FOUND, "nothing here: the page is /")

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the terminal is ours."""

    def _page(self) -> None:
        try:
            page = self.server.page.html()
        except FleetSegError as error:
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
            return
        nonce = secrets.token_urlsafe(16)
        policy = (
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'; connect-src 'self'; "
            f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        body = page.replace(NONCE, nonce).encode()
        self._head(HTTPStatus.OK, "text/html; charset=utf-8", len(body), policy)
        self._write(body)

    def _text(self, status: HTTPStatus, text: str) -> None:
        body = f"{text}\n".encode()
        self._head(status, "text/plain; charset=utf-8", len(body))
        self._write(body)

    def _events(self) -> None:
        if not self.server.streams.acquire(blocking=False):
            self._text(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open")
            return
        try:
            self.close_connection = True
            self._head(HTTPStatus.OK, "text/event-stream", None)
            for event in self._news():
                if not self._write(event.encode()):
                    return
        finally:
            self.server.streams.release()

    def _news(self) -> Iterator[str]:
        """Yield an event for every change, and comments in between, until the server stops."""
        known: dict[str, str] = {}
        written_s = time.monotonic()
        while not self.server.over.is_set():
            for name, data in self._now().items():
                if known.get(name) != data:
                    known[name], written_s = data, time.monotonic()
                    yield f"event: {name}\ndata: {data}\n\n"
            if time.monotonic() - written_s > _ALIVE_S:
                written_s = time.monotonic()
                yield ": still here\n\n"
            self.server.over.wait(_LOOK_S)

    def _now(self) -> dict[str, str]:
        page, state = self.server.page, self.server.page.state()
        fields = {"version": state.version, "sentence": state.sentence, "word": state.word}
        now = {"state": json.dumps(fields)}
        with suppress(FleetSegError):  # the fleet's files may be half written
            if vehicles := page.vehicles():
                now["vehicles"] = json.dumps(vehicles)
        return now

    def _head(
        self, status: HTTPStatus, kind: str, length: int | None, policy: str = "default-src 'none'"
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Content-Security-Policy", policy)
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        with suppress(OSError):
            self.end_headers()

    def _write(self, data: bytes) -> bool:
        """Write to the browser; return False if it has disconnected."""
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except OSError:
            self.close_connection = True
            return False
        return True
