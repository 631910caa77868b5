"""Model folders that need no run: whole, with all that is known in their card, and loadable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.models_on_disk import saved_camvid_model
from tests.records import scored
from tests.run_folders import run_folder

from fleetseg.errors import ConfigError
from fleetseg.export.folder import export_folder
from fleetseg.models.folder import load_model, weights_sha256


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = run_folder(tmp_path / "run", [0.4, 0.5])
    saved_camvid_model(folder / "model")
    return folder


def test_a_run_becomes_a_folder_that_loads_in_a_process_without_the_run(
    run: Path, tmp_path: Path
) -> None:
    sha256 = export_folder(run, tmp_path / "out")
    (run / "model").rename(tmp_path / "gone")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["record"]["scores"]["miou"] == scored(0.5).miou
    assert config["id2label"]["3"] == "road"
    code = (
        "import sys, fleetseg; from fleetseg.models.folder import weights_sha256\n"
        "model = fleetseg.load_model(sys.argv[1])\n"
        "assert 'pickle' not in str(model.record)\n"
        "print(weights_sha256(model), model.record['scores']['miou'], model.size_hw)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split(maxsplit=2)
    assert told[:2] == [sha256, str(scored(0.5).miou)]
    assert told[2].strip() == "(64, 96)"


def test_nothing_is_overwritten_unless_that_is_wanted(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="it exists already"):
        export_folder(run, out)
    export_folder(run, out, force=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert weights_sha256(load_model(out)) == weights_sha256(load_model(run))
    with pytest.raises(ConfigError, match="that is the model's own folder"):
        export_folder(run, run / "model", force=True)


def test_a_model_without_a_run_keeps_what_its_folder_says(run: Path, tmp_path: Path) -> None:
    export_folder(run, tmp_path / "first")
    export_folder(tmp_path / "first", tmp_path / "second")
    for name in ("README.md", "config.json", "model.safetensors"):
        first, second = (tmp_path / part / name for part in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
