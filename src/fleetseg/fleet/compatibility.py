"""Which versions of server and vehicle work together while a fleet is being upgraded.

Both must support a common protocol. A newer server's experiment also has options that an older
vehicle does not know. An option at its default means the behaviour from before it existed, so the
vehicle ignores it; an option that is set is refused, by name.
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
"""The oldest protocol that the other side may have: the previous release's, if the newest only
adds what the other side may omit or ignore."""


def speak_together(server: Any, since: Any) -> bool:
    """Return whether this vehicle can work with a server of one protocol, compatible since another.

    The server speaks protocol `server` and is compatible with those from `since` on.
    """
    if type(server) is not int:
        return False
    newer_server = type(since) is int and since <= PROTOCOL <= server
    return newer_server or COMPATIBLE_SINCE <= server <= PROTOCOL


def at_default(experiment: Experiment) -> list[str]:
    """Return the dotted names of an experiment's options that have their default."""
    every = dotted(experiment.model_dump(mode="json"))
    chosen = dotted(experiment.model_dump(mode="json", exclude_defaults=True))
    return sorted(set(every) - set(chosen))


def understood(text: str, defaults: Any) -> str:
    """Remove from an experiment's text the options that are unknown here and at their default.

    Unreadable text is returned as it is: the parser of experiments reports what is wrong with it.
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
    """Keep options that `section` knows, or that are unknown but set; None knows no options."""
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
