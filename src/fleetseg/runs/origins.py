"""Where each value of an experiment comes from: a default, its preset, its file, or `--set`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleetseg.experiment_file import (
    apply_override,
    dotted,
    load_experiment,
    read_fields,
    to_toml,
)
from fleetseg.methods import METHODS

DEFAULT, FILE, SET = "default", "file", "--set"
_WIDTH = 44  # columns of a value, before the comment on it


def origins(path: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Map the dotted name of each option that was set to its origin; all others are defaults.

    An item of an array of tables is numbered: "data.sources.0.kind".

    Raises:
        ConfigError: as `load_experiment`.
    """
    own, given = read_fields(path), read_fields(path)
    said: dict[str, Any] = {}
    for override in overrides:
        apply_override(said, override)
        apply_override(given, override)
    found: dict[str, str] = {}
    method = given.get("method", "")
    if method:
        found |= dict.fromkeys(_leaves(METHODS[method].fields), f"preset {method}")
    found |= dict.fromkeys(_leaves(own), FILE)
    return found | dict.fromkeys(_leaves(said), SET)


def toml_with_origins(path: Path, overrides: Sequence[str] = ()) -> str:
    """Write the whole experiment as TOML, each value with a comment on its origin.

    Raises:
        ConfigError: as `load_experiment`.
    """
    experiment = load_experiment(path, overrides)  # first, because it explains errors
    found = origins(path, overrides)
    lines, section, items = [], "", dict[str, int]()
    for line in to_toml(experiment).splitlines():
        if table := re.fullmatch(r"\[\[(.+)\]\]", line):
            number = items.get(table[1], 0)
            items[table[1]] = number + 1
            section = f"{table[1]}.{number}."
        elif table := re.fullmatch(r"\[(.+)\]", line):
            section = f"{table[1]}."
        elif line:
            key = section + line.partition(" = ")[0]
            line = f"{line:<{_WIDTH}}  # {_origin(key, found)}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _origin(key: str, found: Mapping[str, str]) -> str:
    return found.get(key, DEFAULT)


def _leaves(fields: Mapping[str, Any]) -> list[str]:
    names = []
    for name, value in dotted(fields).items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for number, item in enumerate(value):
                names += [f"{name}.{number}.{leaf}" for leaf in dotted(item)]
        else:
            names.append(name)
    return names
