"""Two paths on the loopback, over a real socket."""

from __future__ import annotations

import socket
from http.client import HTTPConnection

import pytest

from fleetseg.errors import ConfigError
from fleetseg.fleet.server.endpoint import answering


def get(port: int, path: str) -> tuple[int, str, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, str(answer.getheader("Content-Type")), text


def test_metrics_and_health_are_answered_and_nothing_else() -> None:
    well = [True]

    def health() -> tuple[bool, str]:
        return well[0], "ok" if well[0] else "hangs"

    with answering(0, lambda: b"fleetseg_x 1\n", health) as port:
        assert get(port, "/metrics") == (
            *(200, "text/plain; version=0.0.4; charset=utf-8", "fleetseg_x 1\n"),
        )
        assert get(port, "/healthz?from=here")[::2] == (200, "ok\n")
        well[0] = False
        assert get(port, "/healthz")[::2] == (503, "hangs\n")
        for path in ("/", "/metrics/", "/../etc/passwd"):
            assert get(port, path)[0] == 404
        # The loopback only: on this machine's other addresses, nobody listens.
        with socket.socket() as other:
            other.settimeout(2)
            assert other.connect_ex(("127.0.0.2", port)) != 0
    with socket.socket() as after:
        assert after.connect_ex(("127.0.0.1", port)) != 0


def test_what_cannot_be_told_does_not_end_the_server() -> None:
    def broken() -> bytes:
        raise RuntimeError("for this once")

    with answering(0, broken, lambda: (True, "ok")) as port:
        assert get(port, "/metrics")[::2] == (500, "RuntimeError\n")
        assert get(port, "/healthz")[0] == 200


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"--metrics-port: port {port} cannot be opened"),
            answering(port, lambda: b"", lambda: (True, "ok")),
        ):
            pass
