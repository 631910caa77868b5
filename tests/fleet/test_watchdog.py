"""What systemd hears, over a real socket: readiness, signs of life, and nothing from what hangs."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetseg.fleet.sockets import private_directory
from fleetseg.fleet.watchdog import Watchdog, following_this_thread, notify, patience_s

HANGING = """
import threading, time
from fleetseg.fleet.watchdog import following_this_thread
with following_this_thread():
    end_s = time.monotonic() + 0.5
    while time.monotonic() < end_s:
        time.sleep(0.01)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
"""


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """The service manager's end."""
    folder = private_directory()
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(0.0)
        yield listener
    path.unlink()
    folder.rmdir()


def told(manager: socket.socket) -> list[str]:
    """All messages that have come."""
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def test_a_message_is_a_datagram(manager: socket.socket) -> None:
    assert notify("READY=1", {"NOTIFY_SOCKET": manager.getsockname()})
    assert told(manager) == ["READY=1"]


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0fleetseg-{os.getpid()}")
        assert notify("READY=1", {"NOTIFY_SOCKET": f"@fleetseg-{os.getpid()}"})
        assert listener.recv(100) == b"READY=1"


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    with following_this_thread({}):
        pass
    Watchdog({}).alive()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "120000000"}, 120.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": str(os.getpid())}, 120.0),
        ({"WATCHDOG_USEC": "120000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_how_long_the_watchdog_waits(environment: dict[str, str], seconds: float) -> None:
    assert patience_s(environment) == seconds


def test_a_loop_that_turns_often_says_so_often_enough(manager: socket.socket) -> None:
    now_s = [0.0]
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "120000000"}
    watchdog = Watchdog(environment, lambda: now_s[0])
    for _ in range(480):  # two minutes of a supervisor
        watchdog.alive()
        now_s[0] += 0.25
    assert told(manager) == ["WATCHDOG=1"] * 4


def test_a_thread_that_moves_is_alive(manager: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"}
    with following_this_thread(environment):
        end_s = time.monotonic() + 0.6
        while time.monotonic() < end_s:
            time.sleep(0.005)  # as a server that waits for answers
    messages = told(manager)
    assert messages[0] == "READY=1"
    assert messages.count("WATCHDOG=1") == len(messages) - 1 >= 3


def test_of_a_thread_that_hangs_nothing_is_heard(manager: socket.socket) -> None:
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": manager.getsockname(),
        "WATCHDOG_USEC": "400000",
    }
    process = subprocess.Popen([sys.executable, "-c", HANGING], env=environment)
    try:
        manager.settimeout(30.0)
        assert manager.recv(100) == b"READY=1"
        manager.settimeout(2.0)
        alive: list[bytes] = []
        with contextlib.suppress(TimeoutError):
            while len(alive) < 100:
                alive.append(manager.recv(100))
        assert set(alive) == {b"WATCHDOG=1"}
        assert 2 <= len(alive) <= 20  # while it moved
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
