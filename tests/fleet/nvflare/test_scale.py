"""The benchmark of large fleets, with a small one: its vehicles are real enough for the server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fleet.nvflare import harness as h

pytestmark = pytest.mark.fleet_full

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "fleet_scale.py"
SMALL = ("--vehicles", "3", "--per-process", "2", "--cohorts", "2,2", "--rounds", "2")


def start(folder: Path, *words: str) -> h.Process:
    return h.Process(
        [sys.executable, str(SCRIPT), *SMALL, *words], folder / "output", TMPDIR=str(folder)
    )


def test_thin_vehicles_enrol_serve_rounds_and_come_back_to_another_server(tmp_path: Path) -> None:
    with h.nothing_left(tmp_path):
        process = start(tmp_path, "--idle", "12")
        assert process.wait(400) == 0, process.text
    figures = dict(re.findall(r"^\| (.+?) \| ([\d.]+) \|$", process.text, re.MULTILINE))
    assert figures["in the job and enrolled"] == "3.00"
    assert figures["round of 2, back to back: updates accepted, mean"] == "2.00"
    assert figures["round of 2, after a pause: updates accepted, mean"] == "2.00"
    assert figures["connected again after a restart of the server"] == "3.00"
    assert figures["processes left behind"] == "0.00"


def test_an_interrupt_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    with h.nothing_left(tmp_path):
        process = start(tmp_path)
        h.until(lambda: "all registered after" in process.text, "vehicles", 200)
        process.interrupt()
        assert process.wait(90) == 130, process.text
    assert list(tmp_path.glob("fsc-*")) == []


@pytest.mark.parametrize(
    ("words", "said"), [(("--vehicles", "many"), "no list of numbers"), (("--help",), "--cohorts")]
)
def test_its_command_line_says_what_it_takes(words: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False
    )
    assert said in done.stdout + done.stderr
