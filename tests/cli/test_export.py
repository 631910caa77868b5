"""`fleetseg export` from outside: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

from tests.export.conftest import model_folder, pictures_folder  # noqa: F401
from typer.testing import CliRunner, Result

from fleetseg.cli.app import app


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_a_program_is_written_and_what_it_computes_is_told(
    model_folder: Path,  # noqa: F811
    pictures_folder: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    done = call(
        model_folder, "--format", "torch-export", "--images", pictures_folder, "--out", out,
        "--size", "32x40",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "model.pt2 (0.1 MB) in" in done.stdout
    assert "against torch on 6 images: logits differ by at most" in done.stdout
    assert "classes agree in 100.000 % of pixels" in done.stdout
    assert "torch.export" in done.stdout
    assert "tracing small at 32 x 40" in done.stderr
    again = call(
        model_folder, "--format", "torch-export", "--images", pictures_folder, "--out", out
    )
    assert again.exit_code == 1
    assert "files exist already" in again.stderr


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    for words in (["--int8"], ["--calibrate", "x"], ["--format", "folder", "--size", "8x8"]):
        assert call(tmp_path, *words).exit_code == 2
    assert "--size takes HEIGHTxWIDTH" in call(tmp_path, "--size", "8").stderr
    assert "Name the folder: --out DIR" in call(tmp_path, "--format", "folder").stderr
    assert "no saved model here" in call(tmp_path).stderr
