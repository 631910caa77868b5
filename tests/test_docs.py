"""What the documents name exists: modules, files, tests, and the code that they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.test_house import ROOMS

from fleetseg.config import Experiment
from fleetseg.federation.fleet_facts import FLEET_FACTS
from fleetseg.federation.tasks import CLIENT_TASKS
from fleetseg.methods import METHODS as PRESETS
from fleetseg.runs.choices import TABLES

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)

CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./-]*\w\.(?:py|md|toml)")
OURS = ("tests", "src", "docs", "benchmarks", "examples", "engines", "federation", "learning")
FOLDER = re.compile(rf"(?:{'|'.join(OURS)})/[\w/-]*")
DOTTED = re.compile(r"(?:fleetseg\.)?([a-z_]+(?:\.\w+)+)")
OTHERS = {
    "classes.toml", "experiment.toml", "sweep.toml", "comparison.md", "my-drives.toml",
    "tuned.toml", "tuning.md", "policy.toml",
    "release.json", "release.html", "EXPERIMENT.toml",
}  # fmt: skip
"""Files of a user's, not of this repository."""


def named(text: str) -> list[str]:
    """List the words between backquotes, outside of blocks."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return [word.rstrip(",;:)") for code in CODE.findall(prose) for word in code.split()]


def is_there(name: str) -> bool:
    """Whether a path is one of the repository, from its root, a room or the tests."""
    bases = (ROOT, ROOT / "src" / "fleetseg", ROOT / "tests", ROOT / "docs")
    return any((base / name).exists() for base in bases)


def is_module(name: str) -> bool:
    """Whether a dotted name, without the package's own, is a module or something in one."""
    *packages, last = name.split(".")
    path = ROOT.joinpath("src", "fleetseg", *packages)
    if (path / last).is_dir() or (path / f"{last}.py").is_file():
        return True
    module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return module.is_file() and re.search(rf"\b{last}\b", module.read_text()) is not None


def is_option(name: str) -> bool:
    """Whether a dotted name is an option of experiments."""
    section: Any = Experiment
    for part in name.split("."):
        if part not in getattr(section, "model_fields", {}):
            return False
        section = section.model_fields[part].annotation
    return True


@each_document
def test_files_and_folders_that_are_named_exist(document: Path) -> None:
    words = [word for word in named(document.read_text()) if word not in OTHERS]
    names = [word for word in words if FILE.fullmatch(word) or FOLDER.fullmatch(word)]
    assert [name for name in names if not is_there(name)] == []


@each_document
def test_modules_and_options_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    words = [w.partition("=")[0].replace("[]", "") for w in named(text) if not FILE.fullmatch(w)]
    words = [word for word in words if word not in OTHERS]
    firsts = {*ROOMS, *Experiment.model_fields}
    dotted = [match[1] for word in words if (match := DOTTED.fullmatch(word))]
    names = [name for name in dotted if name.partition(".")[0] in firsts]
    assert [name for name in names if not (is_module(name) or is_option(name))] == []


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_the_rooms_are_described_in_their_order() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Rooms")[2].partition("## Seams")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert [name.rstrip("/") for row in rows for name in CODE.findall(row)] == list(ROOMS)


def test_what_a_room_is_said_to_hold_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Rooms")[2].partition("## Seams")[0]
    missing = []
    for line in table.splitlines():
        if not line.startswith("| `"):
            continue
        _, rooms, content, *_ = line.split("|")
        homes = [ROOT / "src" / "fleetseg" / room.rstrip("/") for room in CODE.findall(rooms)]
        for name in CODE.findall(content):
            if re.fullmatch(r"\w+/?", name) and name.islower():
                paths = [home / f"{name.rstrip('/')}{end}" for home in homes for end in ("", ".py")]
                missing += [] if any(path.exists() for path in paths) else [f"{rooms}: {name}"]
    assert missing == []


METHODS = (ROOT / "docs" / "methods.md").read_text()
SHOWN = re.findall(r"`((?:tests|methods)/[\w/]+\.py)`:\n\n```python\n(.*?)```", METHODS, re.DOTALL)


@pytest.mark.parametrize(("name", "code"), SHOWN, ids=[name for name, _ in SHOWN])
def test_a_file_that_is_shown_whole_is_that_file(name: str, code: str) -> None:
    path = ROOT / name if name.startswith("tests/") else ROOT / "src" / "fleetseg" / name
    assert code == path.read_text()


def test_lines_of_tables_that_are_shown_are_those_of_the_toys() -> None:
    lines = re.findall(r'^[A-Z_]+\["[^"]+"\] = \w+$', METHODS, re.MULTILINE)
    assert len(lines) == 2
    toys = (ROOT / "tests" / "toys" / "all.py").read_text()
    assert [line for line in lines if f"    {line}\n" not in toys] == []


def test_every_table_of_choices_is_in_the_list_of_methods() -> None:
    options = [*TABLES, "training.loss", "training.optimiser", "training.schedule", "model.name"]
    assert [option for option in options if f"| `{option}` |" not in METHODS] == []


def test_every_preset_is_in_the_table() -> None:
    rows = "".join(line for line in METHODS.splitlines() if line.startswith("| `"))
    assert [name for name in PRESETS if f"`{name}`" not in rows] == []


def test_every_kind_of_message_is_in_the_table_of_what_leaves_a_vehicle() -> None:
    lines = (ROOT / "docs" / "deploy.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    kinds = {kind for line in rows for kind in CODE.findall(line.split("|")[1])}
    assert {"hello", "failure", "judge", "release", *CLIENT_TASKS} <= kinds
    hello = next(line for line in rows if line.startswith("| `hello`"))
    assert all(fact.why in hello for fact in FLEET_FACTS.values() if fact.is_reported)
