"""A thread that dies ends what waits for it, with the reason, and never in silence."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fleetseg
from fleetseg.errors import ConfigError, FleetSegError
from fleetseg.fleet.threads import start_thread

FLEET = Path(fleetseg.__file__).parent / "fleet"
DIES = """
import time
from fleetseg.fleet.threads import start_thread

def work():
    raise RecursionError("too deep")

start_thread(work, "fleetseg-reader")
time.sleep(60)
"""


def test_a_process_ends_with_its_thread_and_says_why() -> None:
    done = subprocess.run([sys.executable, "-c", DIES], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "'fleetseg-reader' has died (RecursionError: too deep)" in done.stderr
    assert "line 6, in work" in done.stderr


@pytest.mark.parametrize("error", [KeyError("busy"), MemoryError(), ConfigError("a wrong name")])
def test_whoever_is_to_know_of_a_death_knows(error: Exception) -> None:
    def work() -> None:
        raise error

    told: list[FleetSegError] = []
    start_thread(work, "reader", told.append).join(10)
    (death,) = told
    assert death is error or (type(error).__name__ in str(death) and "'reader'" in str(death))


def test_a_thread_that_ends_is_none_that_dies() -> None:
    told: list[FleetSegError] = []
    thread = start_thread(lambda: None, "reader", told.append)
    thread.join(10)
    assert thread.daemon
    assert told == []


def test_long_lived_threads_of_a_fleet_are_started_in_one_place() -> None:
    """All but one that closes a session, waits a second for it and is forgotten."""
    found = [
        path.name
        for path in sorted(FLEET.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("threading.Thread")
    ]
    assert found == ["network.py", "threads.py"]
