"""Which clients take part, by name: `federation.only` and `federation.exclude`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from fleetseg.config import FederationConfig
from fleetseg.errors import ConfigError
from fleetseg.text import listing


def why_left_out(client: str, settings: FederationConfig) -> str:
    """Return why a client is left out; empty if it takes part.

    >>> settings = FederationConfig(only=("car-*",), exclude=("*-3",))
    >>> [why_left_out(name, settings) for name in ("car-1", "car-3", "van-1")]
    ['', 'left out by federation.exclude', 'not in federation.only']
    """
    if _matches(client, settings.exclude):
        return "left out by federation.exclude"
    if settings.only and not _matches(client, settings.only):
        return "not in federation.only"
    return ""


def left_out(clients: Iterable[str], settings: FederationConfig) -> tuple[str, ...]:
    """Return the names of the clients that are left out, sorted."""
    return tuple(sorted(client for client in clients if why_left_out(client, settings)))


def require_somebody(clients: Collection[str], settings: FederationConfig) -> None:
    """Refuse patterns that leave out all clients.

    Raises:
        ConfigError: naming the patterns and the clients.
    """
    if clients and len(left_out(clients, settings)) == len(clients):
        raise ConfigError(
            "federation.only and federation.exclude leave out every vehicle",
            got=f"only = {list(settings.only)}, exclude = {list(settings.exclude)}",
            expected=f"patterns of some of: {listing(sorted(clients))}",
        )


def idle_patterns(clients: Collection[str], settings: FederationConfig) -> list[str]:
    """Return a note for each pattern that matches no client."""
    named = (("only", settings.only), ("exclude", settings.exclude))
    return [
        f"federation.{option}: no vehicle matches '{pattern}'"
        for option, patterns in named
        for pattern in patterns
        if not any(fnmatchcase(client, pattern) for client in clients)
    ]


def _matches(client: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(client, pattern) for pattern in patterns)
