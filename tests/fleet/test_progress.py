"""How far a trainer has got: counted by its work, seen by whoever watches it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.fleet.job import until

from fleetseg.fleet.progress import Progress, ProgressPage, read_progress

COUNTING = """
import sys, time
from pathlib import Path
from fleetseg.fleet.progress import ProgressPage
page = ProgressPage(Path(sys.argv[1]))
page.begin("train", 300.0)
while True:
    page.step()
    time.sleep(0.005)
"""


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    assert read_progress(path) is None
    page = ProgressPage(path)
    assert read_progress(path) == Progress(os.getpid(), 0, math.inf, "starting")
    page.begin("evaluate-personal", 300.0)
    for _ in range(41):
        page.step()
    assert read_progress(path) == Progress(os.getpid(), 42, 300.0, "evaluate-personal")
    assert str(read_progress(path)) == f"evaluate-personal 42 ({os.getpid()})"
    assert [found.name for found in tmp_path.iterdir()] == ["progress"]


def test_a_new_process_has_a_page_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    old, new = ProgressPage(path), ProgressPage(path)
    old.begin("train", 1.0)
    new.begin("idle", 2.0)
    old.step()
    read = read_progress(path)
    assert read is not None
    assert (read.phase, read.steps) == ("idle", 1)


def test_a_page_that_is_none_is_none(tmp_path: Path) -> None:
    (tmp_path / "progress").write_bytes(b"half")
    assert read_progress(tmp_path / "progress") is None
    (tmp_path / "other").write_bytes(b"\xff" * 48)  # whatever it holds, it can be shown
    assert str(read_progress(tmp_path / "other")).isprintable()


def test_nobody_need_watch() -> None:
    page = ProgressPage()
    page.begin("train", 1.0)
    page.step()


def test_any_thread_may_count(tmp_path: Path) -> None:
    page = ProgressPage(tmp_path / "progress")
    threads = [threading.Thread(target=page.step) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    read = read_progress(tmp_path / "progress")
    assert read is not None
    assert 1 <= read.steps <= 8


def test_a_process_that_is_stopped_makes_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    process = subprocess.Popen([sys.executable, "-c", COUNTING, str(path)])
    try:
        first = until(lambda: (p := read_progress(path)) and p.phase == "train" and p, "its steps")
        until(lambda: read_progress(path) != first, "progress")
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T", "it stops")
        stopped = read_progress(path)
        assert all(read_progress(path) == stopped for _ in range(100))
    finally:
        process.kill()
        process.wait()
