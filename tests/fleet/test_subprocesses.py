"""Children end with their parent, whatever way that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fleet.job import until

from fleetseg.fleet.subprocesses import (
    cpu_seconds,
    descendants,
    kill_orphans,
    rotate_log,
    start_child,
    stop,
)

# Says where it is and sleeps; with "deaf", SIGTERM means nothing to it.
SLEEPER = """
import os, signal, sys, time
from pathlib import Path
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(300)
"""
# Starts a sleeper in a session of its own, then sleeps too.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], start_new_session=True)
child.wait()
"""
# Starts a sleeper that dies with its parent, and says so.
LEASHING = """
import sys, time
from pathlib import Path
from fleetseg.fleet.subprocesses import start_child
code, told, log = sys.argv[1:]
start_child([sys.executable, "-c", code, told], log=Path(log), environment={})
time.sleep(300)
"""
# Starts a process that watches over its parent itself.
WATCHED = """
import os, sys, time
from pathlib import Path
from fleetseg.fleet.subprocesses import end_with_parent
end_with_parent(poll_s=0.02)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(300)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pid_in(path: Path) -> int:
    return int(until(lambda: path.is_file() and path.read_text(), f"a process id in {path}"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command that dies with this process, and end it after the test."""
    started = []

    def begin(*words: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", *map(str, words)]
        log = tmp_path / "logs" / "child.log"
        started.append(start_child(command, log=log, environment=environment, cwd=tmp_path))
        return started[-1]

    yield begin
    for process in started:
        stop(process, patience_s=0)


def test_what_a_child_says_is_appended_to_its_log(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    told = "import os, sys; print(os.environ['WORD'], os.getcwd()); print('oh', file=sys.stderr)"
    for word in ("one", "two"):
        assert start(told, WORD=word).wait() == 0
    lines = (tmp_path / "logs" / "child.log").read_text().splitlines()
    assert sorted(lines) == sorted([f"one {tmp_path}", "oh", f"two {tmp_path}", "oh"])


def test_the_exit_code_and_the_id_are_the_command_s_own(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    child = start(SLEEPER, tmp_path / "pid")
    assert pid_in(tmp_path / "pid") == child.pid
    assert os.getsid(child.pid) == child.pid  # Ctrl-C in a terminal does not reach it
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert start("raise SystemExit(7)").wait() == 7


def test_a_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    words = [SLEEPER, str(tmp_path / "pid"), str(tmp_path / "log")]
    parent = subprocess.Popen([sys.executable, "-c", LEASHING, *words])
    child = pid_in(tmp_path / "pid")
    parent.kill()
    parent.wait()
    until(lambda: not alive(child), "the child ends")


def test_a_process_may_watch_over_its_parent_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, WATCHED, str(tmp_path / "pid")]
    parent = subprocess.Popen(command)
    child = pid_in(tmp_path / "pid")
    time.sleep(0.1)
    assert alive(child)
    parent.kill()
    parent.wait()
    until(lambda: not alive(child), "the child ends")


def test_no_child_starts_for_a_parent_that_is_gone_already(tmp_path: Path) -> None:
    told = f"open({str(tmp_path / 'ran')!r}, 'w')"
    parent_watch = [sys.executable, "-m", "fleetseg.fleet.subprocesses", "1"]
    assert subprocess.run([*parent_watch, sys.executable, "-c", told], check=False).returncode == 1
    assert not (tmp_path / "ran").exists()


def test_stop_asks_first(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    child = start(SLEEPER, tmp_path / "pid")
    pid_in(tmp_path / "pid")
    stop(child, patience_s=20)
    assert child.returncode == -signal.SIGTERM


def test_stop_kills_what_does_not_listen(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    child = start(SLEEPER, tmp_path / "pid", "deaf")
    pid_in(tmp_path / "pid")
    stop(child, patience_s=0.05)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("deaf", [[], ["deaf"]])
def test_stop_ends_grandchildren_of_other_sessions_too(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, deaf: list[str]
) -> None:
    child = start(PARENT, SLEEPER, tmp_path / "pid", *deaf)
    grandchild = pid_in(tmp_path / "pid")
    assert descendants(child.pid) == [grandchild]
    stop(child, patience_s=5)
    until(lambda: not alive(grandchild), "the grandchild ends")


def test_stop_of_what_has_ended_is_no_trouble(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    child = start("pass")
    child.wait()
    for _ in range(2):
        stop(child, patience_s=0)
    assert child.returncode == 0
    assert descendants(child.pid) == []


def test_a_child_that_nothing_holds_lives_on_without_a_stop(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    child = start(SLEEPER, tmp_path / "pid")
    pid_in(tmp_path / "pid")
    time.sleep(0.1)
    assert child.poll() is None


def test_leftovers_of_an_earlier_start_are_ended(tmp_path: Path) -> None:
    sleep = "import time; time.sleep(60)"
    command = [sys.executable, "-c", sleep, "some.engine.server", str(tmp_path)]
    left = subprocess.Popen(command)
    other = subprocess.Popen([*command[:-1], str(tmp_path / "other")])
    try:
        for child in (left, other):  # for a moment after it has begun, a process shows no words
            while not Path(f"/proc/{child.pid}/cmdline").read_bytes():
                time.sleep(0.01)
        assert kill_orphans("some.engine.", tmp_path) == 1
        assert left.wait(20) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait()


def test_a_log_that_its_writer_has_open_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    assert not rotate_log(log, 10)
    with open(log, "ab", buffering=0) as writer:
        for k in range(1, 6):
            writer.write(b"%d" % k * 11)
            assert rotate_log(log, 10, kept=3)
            assert not rotate_log(log, 10, kept=3)
        writer.write(b"now")
    assert log.read_bytes() == b"now"
    kept = {path.name: path.read_bytes()[:1] for path in tmp_path.glob("engine.log.*")}
    assert kept == {"engine.log.1": b"5", "engine.log.2": b"4", "engine.log.3": b"3"}


def test_a_full_disk_costs_the_copy_and_the_log_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    log = tmp_path / "engine.log"
    log.write_bytes(b"x" * 11)
    assert rotate_log(log, 10)
    assert log.read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.log"]


def test_processor_time_is_the_kernel_s() -> None:
    before_s, began_s = cpu_seconds(os.getpid()), time.process_time()
    while time.process_time() - began_s < 0.2:
        pass
    assert 0.1 < cpu_seconds(os.getpid()) - before_s < 5
    assert cpu_seconds(1 << 30) == 0.0  # there is no such process
