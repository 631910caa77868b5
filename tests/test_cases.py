"""Situations of other people's bug reports, as scripts that lie beside the checkout if anywhere.

Those that take seconds; what all of them ask for has tests of its own where it belongs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "cases"


@pytest.mark.parametrize("number", ["02", "04", "20", "21", "24", "25", "26", "28"])
def test_the_situation_is_met_as_a_user_would_expect(number: str, tmp_path: Path) -> None:
    script = FOLDER / f"case_{number}.py"
    if not script.is_file():
        pytest.skip(f"no such script at {FOLDER}")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
