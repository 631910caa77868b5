"""A sharing policy: this file, and a line in a dict."""

from __future__ import annotations

from fleetseg.config import FederationConfig
from fleetseg.federation.tensors import Entry


def norms_stay(entry: Entry, settings: FederationConfig) -> bool:
    """Exchange everything but what belongs to norm layers."""
    return not entry.in_norm
