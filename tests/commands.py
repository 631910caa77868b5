"""The commands that documents and examples show, in words; nothing is executed."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping, Sequence

VARIABLE = re.compile(r"([A-Z]+)=(.*)")
DATA = "$FLEETSEG_DATA"
"""Stays as it is written."""


def commands_in(lines: Sequence[str]) -> list[list[str]]:
    """List the words after `fleetseg` of every command that begins a line.

    Variables that are set in lines of their own stand for what a shell puts in their place; what a
    loop repeats is indented, and left out.
    """
    values: dict[str, str] = {}
    commands = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if variable := VARIABLE.fullmatch(line):
            values[f"${variable[1]}"] = "".join(shlex.split(variable[2]))
        elif line.startswith("fleetseg "):
            words = shlex.split(line, comments=True)[1:]
            commands.append([part for word in words for part in _put_in(word, values)])
    return commands


def _put_in(word: str, values: Mapping[str, str]) -> list[str]:
    if word in values:
        return values[word].split()
    for name, value in values.items():
        word = word.replace(name, value)
    return [word]


def in_document(text: str) -> list[str]:
    """Return the lines of the blocks of a document."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def in_example(text: str) -> list[str]:
    """Return the comments of an example's file, without what every one of them begins with."""
    return [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#")]


def overrides_in(words: Sequence[str]) -> list[str]:
    """Return what follows each `--set` of a command."""
    return [after for word, after in itertools.pairwise(words) if word == "--set"]
