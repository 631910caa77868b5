"""The documentation as a site: built with warnings as errors, and of commands that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
from tests.commands import commands_in, in_document

from fleetseg.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages; a warning fails the build."""
    pytest.importorskip("mkdocs")
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_is_built(site: Path) -> None:
    built = {page.relative_to(site).with_suffix("") for page in site.rglob("*.html")}
    docs = ROOT / "docs"
    assert {page.relative_to(docs).with_suffix("") for page in docs.rglob("*.md")} <= built


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(https?:)?//", re.IGNORECASE)
    links = re.compile(
        r"<link\b[^>]*rel=\"?(?:stylesheet|preconnect|preload)[^>]*//", re.IGNORECASE
    )
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not loads.search(text), page.name
        assert not links.search(text), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:", sheet.read_text()), sheet.name


def test_the_reference_has_what_is_public(site: Path) -> None:
    import fleetseg

    page = (site / "reference" / "python.html").read_text()
    missing = [
        name for name in fleetseg.__all__ if not re.search(rf'id="fleetseg\.[\w.]*{name}"', page)
    ]
    assert missing == ["__version__"]


def test_the_tutorial_on_networks_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "tutorials" / "own-model.md").read_text()
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "tutorial"})
    first, *predicted, last = capsys.readouterr().out.splitlines()
    assert first.startswith("rounds ")
    assert predicted == ["(64, 64) uint8"] * 12
    assert 0 <= float(last) <= 1


def command_of(words: list[str]) -> tuple[click.Command | None, list[str]]:
    """Find the command that words name, and what comes after it; None if there is none."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest and hasattr(command, "commands"):
        if rest[0].startswith("-"):
            break
        command = command.commands.get(rest.pop(0))
        if command is None:
            return None, rest
    return command, rest


def wrong(words: list[str]) -> str:
    """Say what of a command line does not exist."""
    command, rest = command_of(words)
    if command is None:
        return f"no such command: {shlex.join(words)}"
    known = {name for parameter in command.params for name in parameter.opts}
    options = [word.partition("=")[0] for word in rest if word.startswith("-")]
    unknown = [option for option in options if option not in known]
    return f"{shlex.join(words)}: no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_shown_exists(page: Path) -> None:
    shown = commands_in([line.strip() for line in in_document(page.read_text())])
    assert [told for words in shown if (told := wrong(words))] == []


def test_a_command_that_does_not_exist_would_be_seen() -> None:
    assert wrong(["fly"]) == "no such command: fly"
    assert wrong(["run", "x.toml", "--fast"]) == "run x.toml --fast: no option --fast"
    assert wrong(["--version"]) == ""


def test_the_list_of_commands_is_whole() -> None:
    def names(command: Any, prefix: str = "fleetseg") -> set[str]:
        inner = getattr(command, "commands", None)
        if inner is None:
            return {prefix}
        return {name for word, sub in inner.items() for name in names(sub, f"{prefix} {word}")}

    text = (ROOT / "docs" / "reference" / "commands.md").read_text()
    listed = set(re.findall(r"^\| `(fleetseg [a-z -]+)` \|", text, re.MULTILINE))
    assert listed == names(typer.main.get_command(app))
