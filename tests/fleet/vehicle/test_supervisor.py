"""The smallest process of a vehicle: starts again what dies, tells what matters, leaves nothing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fleet.job import until

from fleetseg.fleet.progress import ProgressPage
from fleetseg.fleet.vehicle import supervisor as supervisor
from fleetseg.fleet.vehicle.supervisor import Child, Follower, supervise


class FakeProcess:
    """What a child looks like to its supervisor."""

    def __init__(self, code: int | None = None) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[FakeProcess]:
    """Every process that a supervisor starts, and that a test may end."""
    started: list[FakeProcess] = []

    def start(*arguments: Any, **keywords: Any) -> FakeProcess:
        started.append(FakeProcess())
        return started[-1]

    monkeypatch.setattr(supervisor, "start_child", start)
    monkeypatch.setattr(supervisor, "_spread", lambda: 1.0)
    monkeypatch.setattr(supervisor, "stop", lambda process, patience_s: None)
    return started


def test_a_child_that_dies_is_started_again_later_and_later(
    processes: list[FakeProcess], tmp_path: Path
) -> None:
    child = Child("trainer", ["x"], tmp_path / "log", {})
    now_s, pauses = 100.0, []
    assert child.ensure_running(now_s) == ""
    for _ in range(8):
        count = len(processes)
        processes[-1].code = 3
        told = child.ensure_running(now_s)
        assert told.startswith("trainer ended with code 3; restarting it in")
        assert str(tmp_path / "log") in told
        died_s = now_s
        while len(processes) == count:
            now_s += 0.5
            assert child.ensure_running(now_s) == ""
        pauses.append(now_s - died_s)
    assert pauses == [min(2**k, supervisor._MAX_PAUSE_S) for k in range(8)]


def test_vehicles_do_not_all_come_back_at_once() -> None:
    pauses = {supervisor._spread() for _ in range(50)}
    assert len(pauses) > 20
    assert all(1 <= pause < 1.5 for pause in pauses)


def test_a_child_that_ran_well_is_started_again_at_once(
    processes: list[FakeProcess], tmp_path: Path
) -> None:
    child = Child("engine", ["x"], tmp_path / "log", {})
    child.ensure_running(0.0)
    for died_s in (1.0, 5.0):  # two early deaths make the pause long
        processes[-1].code = 1
        child.ensure_running(died_s)
        child.ensure_running(died_s + 3.9)
    processes[-1].code = -9
    assert child.ensure_running(500.0).startswith("engine killed by signal 9; restarting")
    child.ensure_running(500.4)
    assert len(processes) == 3
    child.ensure_running(500.5)
    assert len(processes) == 4


def test_a_child_that_runs_is_left_alone(processes: list[FakeProcess], tmp_path: Path) -> None:
    child = Child("engine", ["x"], tmp_path / "log", {})
    assert [child.ensure_running(float(now_s)) for now_s in range(5)] == [""] * 5
    assert len(processes) == 1
    child.stop()
    Child("other", ["x"], tmp_path / "log", {}).stop()  # never started


def test_a_child_without_progress_is_started_again(
    processes: list[FakeProcess], tmp_path: Path
) -> None:
    """However slow it is, a step is progress; how long one may take is for the child to say."""
    child = Child("trainer", ["x"], tmp_path / "log", {}, tmp_path / "progress")
    now_s = 0.0
    child.ensure_running(now_s)
    now_s = supervisor._START_S - 1.0
    assert child.ensure_running(now_s) == ""  # it loads much before its first step
    page = ProgressPage(tmp_path / "progress")
    page.begin("train", 300.0)
    for _ in range(5):
        now_s += 299.0
        page.step()
        assert child.ensure_running(now_s) == ""
    now_s += 300.0
    assert child.ensure_running(now_s) == ""
    told = child.ensure_running(now_s + 1.0)
    assert told.startswith("trainer has made no progress for 301 s (train 6 (")
    assert "restarting it in 0 s" in told
    child.ensure_running(now_s + 2.0)
    assert len(processes) == 2
    assert not (tmp_path / "progress").exists()  # the page of the one before is not its own


def test_a_child_of_which_nobody_can_say_how_far_it_is_is_left_alone(
    processes: list[FakeProcess], tmp_path: Path
) -> None:
    child = Child("trainer", ["x"], tmp_path / "log", {}, tmp_path / "progress")
    child.ensure_running(0.0)
    ProgressPage(tmp_path / "progress").begin("revoked", math.inf)
    assert child.ensure_running(10**6) == ""
    engine = Child("engine", ["x"], tmp_path / "log", {})
    engine.ensure_running(0.0)
    assert engine.ensure_running(10**6) == ""


def test_a_child_that_never_begins_is_started_again(
    processes: list[FakeProcess], tmp_path: Path
) -> None:
    child = Child("trainer", ["x"], tmp_path / "log", {}, tmp_path / "progress")
    child.ensure_running(0.0)
    assert "no progress for 1801 s (starting)" in child.ensure_running(supervisor._START_S + 1.0)


# Logs


TEXTS = {"is disabled": "revoked", "Connection refused": "no server"}


def append(path: Path, text: str) -> None:
    with open(path, "a") as file:
        file.write(text)


def test_known_texts_are_told_in_words(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    append(log, "old: client is disabled\n")
    follower = Follower(log, TEXTS)
    assert follower.new(0.0) == []  # that was before
    append(log, "nothing\nWARN Connection refused (111)\nclient is dis")
    assert follower.new(1.0) == ["no server"]
    append(log, "abled\n")
    assert follower.new(2.0) == ["revoked"]
    assert follower.new(3.0) == []


def test_the_same_words_are_told_once_a_minute(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    follower = Follower(log, {**TEXTS, "ECONNREFUSED": "no server"})
    told = []
    for second in range(0, 150, 10):
        append(log, "Connection refused, ECONNREFUSED\n" * 3)
        told.append((second, follower.new(float(second))))
    assert [second for second, words in told if words] == [0, 70, 140]
    assert all(words in ([], ["no server"]) for _, words in told)


def test_a_log_that_comes_later_goes_or_is_cut_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    follower = Follower(log, TEXTS)
    assert follower.new(0.0) == []
    append(log, "something long enough\nis disabled\n")
    assert follower.new(0.0) == ["revoked"]
    log.unlink()
    assert follower.new(1.0) == []
    append(log, "Connection refused\n")
    assert follower.new(2.0) == ["no server"]


def test_a_log_may_hold_any_bytes(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    follower = Follower(log, TEXTS)
    log.write_bytes(b"\xff\xfe\x00 is disabled \xf0\n\n\n")
    assert follower.new(0.0) == ["revoked"]
    append(log, "\n")
    append(log, "Connection refused\n")
    assert follower.new(0.0) == ["no server"]


def test_much_text_is_read_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    follower = Follower(log, TEXTS)
    append(log, "x" * 99 + "\n")
    log.write_text(("x" * 99 + "\n") * 15_000 + "is disabled\n")
    told = [word for _ in range(4) for word in follower.new(0.0)]
    assert told == ["revoked"]


def test_an_endless_line_does_not_stop_the_follower(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    follower = Follower(log, TEXTS)
    log.write_text("x" * (1 << 20) + "\nis disabled\n")
    assert [word for _ in range(4) for word in follower.new(0.0)] == ["revoked"]


def test_the_trainer_is_echoed_line_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "trainer.log"
    at = supervisor._copy_log(log, 0)
    assert at == 0
    append(log, "round 1\nrou")
    at = supervisor._copy_log(log, at)
    assert capsys.readouterr().out == "round 1\n"
    append(log, "nd 2\n")
    at = supervisor._copy_log(log, at)
    assert supervisor._copy_log(log, at) == at
    assert capsys.readouterr().out == "round 2\n"
    log.write_text("round 3\n")  # it has begun anew
    supervisor._copy_log(log, at)
    assert capsys.readouterr().out == "round 3\n"


def test_an_endless_line_does_not_stop_the_echo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "trainer.log"
    append(log, "x" * (1 << 16) + "\nafter\n")
    at = 0
    for _ in range(4):
        at = supervisor._copy_log(log, at)
    assert "after" in capsys.readouterr().out


# The process

CHILD = """
import os, sys, time
from pathlib import Path
here = Path(sys.argv[1])
with open(here / "pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
print("at work", os.environ["WORD"], flush=True)
time.sleep(300)
"""


def plan(folder: Path) -> Path:
    """Two children that sleep, the trainer's log among them."""
    for name in ("own", "sockets", "a", "b"):
        (folder / name).mkdir()
    children = {
        name: {
            "command": [sys.executable, "-c", CHILD, str(folder / name)],
            "log": str(folder / f"{name}.log"),
            "environment": {"WORD": name},
        }
        for name in ("a", "b")
    }
    (folder / "plan.json").write_text(
        json.dumps(
            {
                "folder": str(folder / "own"),
                "sockets": str(folder / "sockets"),
                "trainer_log": str(folder / "a.log"),
                "children": children,
                "follow": {str(folder / "b.log"): {"at work b": "b has begun"}},
            }
        )
    )
    return folder / "plan.json"


def start(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fleetseg.fleet.vehicle.supervisor", str(path)],
        stdout=subprocess.PIPE,
        text=True,
    )


def pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(line) for line in path.read_text().split()] if path.is_file() else []


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor whose children are at work."""
    process = start(plan(tmp_path))
    try:
        for name in ("a", "b"):
            until(lambda name=name: pids(tmp_path / name), f"child {name} starts")  # type: ignore[misc]
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_supervisor_that_is_told_to_stop_leaves_nothing(
    running: subprocess.Popen[str], tmp_path: Path, number: int
) -> None:
    running.send_signal(number)
    output, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert output.splitlines()[-1].endswith("stopped")
    assert not any(alive(pid) for name in ("a", "b") for pid in pids(tmp_path / name))
    assert not (tmp_path / "sockets").exists()


def test_a_supervisor_that_is_killed_takes_its_children_along(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    running.kill()
    running.wait()
    children = [*pids(tmp_path / "a"), *pids(tmp_path / "b")]
    until(lambda: not any(map(alive, children)), "the children end")


def test_a_killed_child_is_started_again_and_its_owner_hears_of_it(
    running: subprocess.Popen[str], tmp_path: Path
) -> None:
    os.kill(pids(tmp_path / "a")[0], signal.SIGKILL)
    until(lambda: len(pids(tmp_path / "a")) == 2, "another one")
    until(lambda: (tmp_path / "a.log").read_text().count("at work") == 2, "it works")
    assert len(pids(tmp_path / "b")) == 1
    running.terminate()
    output, _ = running.communicate(timeout=20)
    assert "a killed by signal 9; restarting it in 1 s" in output
    assert "b has begun" in output
    assert "at work a" in output.splitlines()


def test_one_kit_has_one_supervisor(running: subprocess.Popen[str], tmp_path: Path) -> None:
    second = start(tmp_path / "plan.json")
    output, _ = second.communicate(timeout=20)
    assert second.returncode == 1
    assert f"error: this kit is in use by another process ({tmp_path / 'own'})" in output
    assert len(pids(tmp_path / "a")) == 1
    assert (tmp_path / "sockets").exists()


def test_another_supervisor_may_follow(
    running: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # pytest's are pytest's
    running.terminate()
    running.communicate(timeout=20)
    assert supervise({"folder": str(tmp_path / "own"), "children": {}, **follows(tmp_path)}) == 0


def follows(folder: Path) -> dict[str, Any]:
    """The rest of a plan that ends at once, because its parent is not this process's."""
    sockets = folder / "more"
    sockets.mkdir()
    log = str(folder / "a.log")
    return {"sockets": str(sockets), "trainer_log": log, "follow": {}, "parent": -1}
