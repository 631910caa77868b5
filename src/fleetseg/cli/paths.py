"""Paths in the arguments and options of the commands."""

from __future__ import annotations

from pathlib import Path

import typer

from fleetseg.errors import ConfigError
from fleetseg.hosts import given_path


def as_path(text: str) -> Path:
    """Parse a path that a shell may not have expanded (--out=~/runs, a unit file)."""
    try:
        return given_path(text)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
