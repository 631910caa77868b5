"""`fleetseg predict` from outside: what it prints, what it returns, and Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.clips import clip_facts, written_clip
from tests.models_on_disk import saved_camvid_model
from typer.testing import CliRunner, Result

from fleetseg.cli.app import app


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_camvid_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    folder = tmp_path / "streets"
    folder.mkdir()
    generator = np.random.Generator(np.random.Philox(2))
    for name in ("1", "2"):
        pixels = generator.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def predict(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, words)])


def test_what_was_written_is_told_with_the_speed(model: Path, streets: Path) -> None:
    out = streets.parent / "out"
    done = predict(model, streets, "--out", out, "--overlay", "--confidence", "--entropy")
    assert done.exit_code == 0, done.output
    beside = "each with its overlay and confidence map and entropy map,"
    told = re.escape(f"2 label maps, {beside} in {out} (") + r"[\d.e+]+ images/s\)\n"
    assert re.fullmatch(told, done.stdout)
    assert done.stderr == "predicting images: 2 samples\n"
    assert len(list(out.iterdir())) == 8


def test_videos_beside_images_and_what_cannot_be_read(model: Path, streets: Path) -> None:
    out = streets.parent / "out"
    written_clip(streets / "3.mp4", frames=3)
    (streets / "2.png").write_text("no picture")
    done = predict(model, streets, "--out", out, "--overlay", "--frames", 2, "--ids", "raw")
    assert done.exit_code == 1
    assert "bad image skipped: " in done.stdout
    assert f"\n3 label maps and 1 overlay video in {out} (" in done.stdout
    assert done.stderr == "predicting images: 2 samples\npredicting frames of 3.mp4: 2 samples\n"
    assert clip_facts(out / "3_overlay.mp4")[2] == 2


def test_wrong_usage(model: Path, streets: Path) -> None:
    nothing = predict(model, "--out", streets / "out")
    assert nothing.exit_code == 2
    assert "--camera" in nothing.output
    assert predict(model, streets, "--out", "x", "--ids", "colour").exit_code == 2
    norms = predict(model, streets, "--out", streets / "out", "--tiled", "--norms", "batch")
    assert norms.exit_code == 1
    assert "tiles are parts" in norms.stderr


WITH_CAMERA = """
import sys
from fleetseg.data import video
video.CAMERAS[sys.platform] = ("lavfi", "testsrc=size=64x48:rate=10")  # has no end
from fleetseg.cli.app import app
app(sys.argv[1:])
"""


def test_a_camera_is_ended_by_ctrl_c(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["predict", str(model), "--camera", "0", "--out", str(out), "--overlay"]
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_CAMERA, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline_s = time.monotonic() + 120
    while len(list(out.glob("camera0/0*.png"))) < 5 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    maps = len(list(out.glob("camera0/*.png")))
    assert f"{maps} label maps and 1 overlay video".encode() in stdout
    assert b"Ctrl-C ends it" in stderr
    filmed = clip_facts(out / "camera0_overlay.mp4")[2]
    assert abs(filmed - maps) <= 1  # the key was pressed between the two, perhaps
    assert list(out.rglob(".*")) == []
