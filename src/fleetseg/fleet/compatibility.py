"""Which versions of server and vehicle serve together while a fleet is being upgraded.

Both have to take part in one protocol. And a newer server's experiment has options that an older
vehicle does not know: one that is left at its default means what was done before there was such an
option, so the vehicle goes on without it; one that is used is refused, with its name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from fleetseg.config import Experiment
from fleetseg.experiment_file import dotted, fields_to_toml
from fleetseg.fleet.protocol import PROTOCOL

COMPATIBLE_SINCE = PROTOCOL
"""The oldest protocol that the other side may have: that of the release before, where the newest
only adds what the other side may leave out or ignore."""


def speak_together(server: Any, since: Any) -> bool:
    """Say whether this vehicle can serve a server of that protocol, compatible since another."""
    if type(server) is not int:
        return False
    newer_server = type(since) is int and since <= PROTOCOL <= server
    return newer_server or COMPATIBLE_SINCE <= server <= PROTOCOL


def at_default(experiment: Experiment) -> list[str]:
    """List the options of an experiment that have their default, by their dotted names."""
    every = dotted(experiment.model_dump(mode="json"))
    chosen = dotted(experiment.model_dump(mode="json", exclude_defaults=True))
    return sorted(set(every) - set(chosen))


def understood(text: str, defaults: Any) -> str:
    """Leave out of an experiment's text what is not known here and has its default there.

    What cannot be read is returned as it is: whoever reads experiments says what is wrong with it.
    """
    if not isinstance(defaults, list) or not defaults:
        return text
    try:
        fields = tomllib.loads(text)
    except (ValueError, RecursionError):
        return text
    known = _known(fields, Experiment, "", {str(name) for name in defaults})
    return text if known == fields else fields_to_toml(known)


def _known(
    fields: Mapping[str, Any], section: Any, prefix: str, ignorable: Collection[str]
) -> dict[str, Any]:
    """Keep what `section` knows, and what is unknown but has been chosen; None knows nothing."""
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        option = None if section is None else section.model_fields.get(key)
        if isinstance(value, dict):
            inner = option.annotation if option else None
            is_section = isinstance(inner, type) and issubclass(inner, BaseModel)
            if option and not is_section:
                kept[key] = value
            elif below := _known(value, inner, f"{prefix}{key}.", ignorable):
                kept[key] = below
            elif option:
                kept[key] = {}
        elif option or f"{prefix}{key}" not in ignorable:
            kept[key] = value
    return kept
