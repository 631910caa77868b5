"""The controller's side, played by a thread; and a clock that tests put forward."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fleetseg.fleet.server.dispatcher import TaskDispatcher
from fleetseg.fleet.sockets import ConnectionLost, Header, connect

LIMIT_S = 20.0
Act = Callable[["Job", str, Header, bytes], None]
"""What a site does with a task: (job, site, request, payload)."""


class Clock:
    """Real time, and as much more as a test wants."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s

    def jump(self, seconds: float) -> None:
        self.ahead_s += seconds


class Job:
    """One segment: says who joined, hands tasks to sites, ends when it is told to or hung up on."""

    def __init__(
        self, listener: Path, sites: Iterable[str], act: Act, name: str = "job", **told: Any
    ) -> None:
        self.asked: list[Header] = []  # every order "ask", as it came
        self.cancelled: list[str] = []
        self.ended = threading.Event()
        self.stopped = False  # as by SIGSTOP: it says nothing any more
        self._act = act
        self._connection = connect(listener)
        self.send({"is": "joined", "job": name, "sites": list(sites), **told})
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def send(self, header: Header, payload: bytes = b"") -> None:
        with contextlib.suppress(ConnectionLost):
            self._connection.send(header, payload)

    def sent(self, task: str, site: str) -> None:
        self.send({"is": "sent", "task": task, "site": site})

    def beat(self, site: str, busy: str = "", progress: str = "") -> None:
        self.send({"is": "beat", "site": site, "busy": busy, "progress": progress})

    def reply(self, task: str, site: str, header: Any, payload: bytes = b"") -> None:
        self.reply_text(task, site, json.dumps(header), payload)

    def reply_text(self, task: str, site: str, header: str, payload: bytes = b"") -> None:
        self.send({"is": "reply", "task": task, "site": site, "header": header}, payload)

    def die(self) -> None:
        """As by kill -9: the connection closes and nothing is sent."""
        self._connection.close()
        self._thread.join(LIMIT_S)

    def _serve(self) -> None:
        try:
            while True:
                message = self._connection.receive(timeout_s=0.1)
                if message is None:
                    if not self.stopped:
                        self.send({"is": "alive"})
                    continue
                header, payload = message
                if header["do"] == "end":
                    break
                if header["do"] == "cancel":
                    self.cancelled.append(header["task"])
                    continue
                self.asked.append(header)
                for site in header["targets"]:
                    self._act(self, site, header["header"], payload)
        except ConnectionLost:
            pass
        finally:
            self._connection.close()
            self.ended.set()


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait for something that another thread does."""
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {LIMIT_S} s: {what}")


def close(dispatcher: TaskDispatcher) -> None:
    """Close a dispatcher at once: its thread may be waiting in accept."""
    dispatcher._closing = True
    with contextlib.suppress(ConnectionLost):
        connect(dispatcher._listener.path).close()
    dispatcher.close()
