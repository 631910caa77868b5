"""Every experiment that is shipped can be run as documents and the files themselves say."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.commands import commands_in, in_document, in_example, overrides_in

from fleetseg.errors import ConfigError
from fleetseg.experiment_file import load_experiment, read_fields
from fleetseg.runs.choices import check_choices
from fleetseg.runs.sweep_file import read_sweep
from fleetseg.runs.sweep_plan import plan

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "examples").rglob("*.toml"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown() -> list[tuple[str, list[str]]]:
    """List (where, command) of all that run an example."""
    texts = [(path, in_document(path.read_text())) for path in DOCUMENTS]
    texts += [(path, in_example(path.read_text())) for path in FILES]
    return [
        (f"{path.name}: {' '.join(words)}", words)
        for path, lines in texts
        for words in commands_in(lines)
        if words[0] in ("run", "sweep") and words[1].startswith("examples/")
    ]


COMMANDS = shown()


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETSEG_DATA", "/data")


def check(path: Path, overrides: list[str]) -> None:
    """Check a file as far as that can be done without its data."""
    if {"base", "run", "grid"} & read_fields(path).keys():
        assert plan(read_sweep(path, overrides))
        return
    check_choices(load_experiment(path, overrides))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_can_be_run(path: Path) -> None:
    check(path, [])


@pytest.mark.parametrize("words", [w for _, w in COMMANDS], ids=[where for where, _ in COMMANDS])
def test_what_is_shown_can_be_typed(words: list[str]) -> None:
    check(ROOT / words[1], overrides_in(words))


def test_words_are_those_that_a_shell_makes() -> None:
    lines = ["A='--set seed=1'", "D='a=\"b\"'", "for x in 1 2; do", "  fleetseg run $x", "done"]
    lines += [
        "pip install it",
        "fleetseg run x.toml $A \\",
        '  --set "name={$D,c=\\"d e\\"}"  # it\'s so',
    ]
    (words,) = commands_in(lines)
    assert words == ["run", "x.toml", "--set", "seed=1", "--set", 'name={a="b",c="d e"}']
    assert overrides_in(words) == ["seed=1", 'name={a="b",c="d e"}']


def test_commands_are_found_in_documents_and_in_examples() -> None:
    places = {where.partition(":")[0] for where, _ in COMMANDS}
    assert {"README.md", "results.md", "experiments.md", "reproduce.md", "tiny.toml"} <= places
    assert any("--set" in words for _, words in COMMANDS)


def test_a_wrong_option_would_be_seen() -> None:
    with pytest.raises(ConfigError, match=r"federation\.round"):
        check(ROOT / "examples" / "tiny.toml", ["federation.round=2"])
