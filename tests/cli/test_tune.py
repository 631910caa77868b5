"""`fleetseg tune`: its arguments; what it does is in tests/runs/test_tuning.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetseg.cli import app
from fleetseg.console import tune as console
from fleetseg.errors import ConfigError
from fleetseg.runs.tuning import Budget


def test_numbers_are_read_with_commas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def refuse(file: Path, *rest: object, budget: Budget, **others: object) -> None:
        asked.append((file, budget))
        raise ConfigError("not today")

    monkeypatch.setattr(console, "tune", refuse)
    words = ["tune", "x.toml", "--lr", "1e-3, 0.01", "--local-epochs", "1,2", "--rounds", "3"]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stderr) == (1, "error: not today\n")
    assert asked == [(Path("x.toml"), Budget((0.001, 0.01), (1, 2), 3))]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tune"], "name an EXPERIMENT.toml"),
        (["tune", "--resume"], "name an EXPERIMENT.toml"),
        (["tune", "x.toml", "--local-epochs", "1.5"], "--local-epochs takes numbers"),
    ],
)
def test_wrong_words_are_refused(words: list[str], told: str) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())
