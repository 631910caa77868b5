"""The findings of a check of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Finding:
    """One finding."""

    verdict: Verdict
    what: str
    detail: str
