"""Output that cannot be written, or that nobody reads, does not end the work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_COMMAND = [sys.executable, "-m", "fleetseg.cli"]
_SHOW = """
import sys
from fleetseg.streams import finish_streams, prepare_streams
prepare_streams()
print("· – ✓ ✗ █▏▁ ü 車 \\udcff")
sys.stdout.flush()
print(finish_streams() or "fine", file=sys.stderr)
"""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUTF8": "0", **more}


def fleetseg(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_COMMAND, *words], text=True, stderr=subprocess.PIPE, **more)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "- - + x #|1 ? ? ?"),
        ("latin-1", "· - + x #|1 ü ? ?"),
        ("utf-8", "· – ✓ ✗ █▏▁ ü 車 ?"),
    ],
)
def test_any_encoding(encoding: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SHOW],
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode(encoding).strip() == expected
    assert done.stderr.decode(encoding).strip() == "fine"


def test_a_locale_without_letters(tmp_path: Path) -> None:
    (tmp_path / "é").mkdir()
    env = environment(LC_ALL="C", PYTHONCOERCECLOCALE="0")
    done = fleetseg("config", "show", str(tmp_path / "é" / "none.toml"), env=env)
    assert done.returncode == 1
    assert "experiment file not found" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_the_output_is_told_at_the_end() -> None:
    with open("/dev/full", "w") as full:
        done = fleetseg("config", "show", stdout=full)
    assert done.returncode == 1
    assert "error: standard output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_has_gone() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = fleetseg("config", "show", stdout=theirs)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_output_is_no_place_for_the_next_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.close(1); sys.stdout = None\n"
        "from fleetseg.streams import prepare_streams; prepare_streams()\n"
        "handle = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); print('lost')\n"
        "sys.stdout.flush(); sys.exit(handle == 1)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=True)
    assert (tmp_path / "file").read_bytes() == b""
