"""`fleetseg config show`: all defaults, an experiment's own, and who says what."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from fleetseg.cli import app

TINY = str(Path(__file__).resolve().parents[2] / "examples" / "tiny.toml")


def shown(*words: str) -> str:
    result = CliRunner().invoke(app, ["config", "show", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_resolved_says_who_set_each_value() -> None:
    text = shown(TINY, "--resolved", "--set", "method=fedprox", "--set", "seed=1")
    lines = {
        line.partition(" = ")[0]: line.rpartition("# ")[2] for line in reversed(text.splitlines())
    }
    assert (lines["rounds"], lines["seed"], lines["nesterov"]) == ("file", "--set", "default")
    assert lines["objective"] == "preset fedprox"


def test_it_needs_a_file_for_that() -> None:
    result = CliRunner().invoke(app, ["config", "show", "--resolved"])
    assert result.exit_code == 2
    assert "need an EXPERIMENT.toml" in result.output


def test_without_it_the_text_is_as_it_was() -> None:
    assert "  # default" not in shown(TINY)
