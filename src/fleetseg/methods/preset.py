"""The type of a preset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A paper's method: its source, its contribution, and the fields that it sets here."""

    authors: str
    year: int
    title: str
    url: str
    new: str  # in one sentence
    fields: Mapping[str, Any]  # nested, as in an experiment's TOML
