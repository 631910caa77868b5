from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetseg.cli import app
from fleetseg.federation.runfolder import read_end

EXPERIMENT = """
name = "gone"
[data]
size = [48, 64]
sources = [{cities = ["amber"], conditions = ["day"], frames_per_drive = 2}]
[federation]
rounds = 2
conditions = {dropout = 1.0}
[engine]
kind = "inprocess"
"""


@pytest.mark.parametrize("style", [[], ["--quiet"], ["--json"], ["--baseline", "local"]])
def test_a_run_without_one_used_update_is_a_failure(tmp_path: Path, style: list[str]) -> None:
    (tmp_path / "x.toml").write_text(EXPERIMENT)
    out = tmp_path / "run"
    words = ["run", str(tmp_path / "x.toml"), "--out", str(out), *style]
    done = CliRunner().invoke(app, words, env={"FLEETSEG_CACHE": str(tmp_path / "cache")})
    if "local" in style:  # a vehicle alone does not vanish
        assert done.exit_code == 0, done.output
        return
    assert done.exit_code == 1
    assert "no update was used in 2 rounds: " in done.stderr
    end = read_end(out)
    assert end is not None
    assert end["reason"] == "no-update"
