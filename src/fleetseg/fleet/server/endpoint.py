"""`GET /metrics` and `GET /healthz` on the loopback, for Prometheus and service managers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fleetseg.errors import ConfigError
from fleetseg.fleet.threads import start_thread

HOST = "127.0.0.1"
TEXT = "text/plain; version=0.0.4; charset=utf-8"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, port: int, metrics: Callable[[], bytes], health: Callable[[], tuple[bool, str]]
    ) -> None:
        self.metrics, self.health = metrics, health
        super().__init__((HOST, port), _Handler)


@contextmanager
def answering(
    port: int, metrics: Callable[[], bytes], health: Callable[[], tuple[bool, str]]
) -> Iterator[int]:
    """Serve HTTP while the block runs; yields the port.

    Args:
        port: 0 = any free port.
        metrics: returns the text in Prometheus' format.
        health: returns whether the server is healthy, and a line of text about it.

    Raises:
        ConfigError: the port cannot be opened.
    """
    try:
        server = _Server(port, metrics, health)
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be opened ({error.strerror})",
            where="--metrics-port",
            cure="Choose another one",
        ) from None
    thread = start_thread(server.serve_forever, "fleetseg-metrics")
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "fleetseg", ""
    timeout = 30  # seconds that a connection may be open without a request

    def do_GET(self) -> None:
        """Answer with the metrics or the health."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/healthz":
            well, text = self.server.health()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
            self._send(status, f"{text}\n".encode(), "text/plain; charset=utf-8")
        else:
            self._send(HTTPStatus.NOT_FOUND, b"/metrics or /healthz\n", "text/plain")

    def _metrics(self) -> None:
        try:
            text = self.server.metrics()
        except Exception as error:  # such as a fleet.json being edited; the next scrape may work
            name = type(error).__name__
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, f"{name}\n".encode(), "text/plain")
            return
        self._send(HTTPStatus.OK, text, TEXT)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing to the terminal."""

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)
